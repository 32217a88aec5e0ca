//go:build unix

package preforktest

import (
	"os"
	"os/signal"
	"syscall"
)

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT

// unignore has programs start with the default effect of the signals that nohup, or a shell that runs this in the
// background, has ignored here. They still do nothing in this process: a signal that a process catches is the one that
// exec gives its default effect again (POSIX; an ignored one stays ignored).
func unignore() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}
