//go:build unix

package preforktest

import (
	"os"
	"os/signal"
	"syscall"
)

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT

// restoreIgnoredSignals makes programs start with the default effect of the
// signals that nohup, or a shell that runs this process in the background, has
// ignored. In this process they still have no effect. By POSIX, exec restores
// the default effect of signals that a process catches; an ignored one stays
// ignored.
func restoreIgnoredSignals() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}
