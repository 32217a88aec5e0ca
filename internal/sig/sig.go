// Package sig names signals and reports which of them a Go program can receive.
package sig

import (
	"fmt"
	"os"
	"syscall"
)

// Name returns the name of a signal, such as "SIGHUP", or "signal 35" if the
// system has no name for it. It returns "nothing" for nil. For a signal that is
// not a syscall.Signal it returns the result of its String method.
func Name(sig os.Signal) string {
	if sig == nil {
		return "nothing"
	}
	n, ok := sig.(syscall.Signal)
	if !ok {
		return sig.String()
	}
	if name := systemName(n); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(n))
}
