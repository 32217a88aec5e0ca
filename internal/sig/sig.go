// Package sig names signals, and tells which of them a program can receive.
package sig

import (
	"fmt"
	"os"
	"syscall"
)

// Name returns the name of a signal, such as "SIGHUP"; "signal 35" if it has
// none, and "nothing" for nil.
func Name(sig os.Signal) string {
	switch n, ok := sig.(syscall.Signal); {
	case sig == nil:
		return "nothing"
	case ok && systemName(n) != "":
		return systemName(n)
	case ok:
		return fmt.Sprintf("signal %d", int(n))
	}
	return sig.String()
}
