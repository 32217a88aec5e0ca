//go:build linux || freebsd

package proc

import (
	"runtime"
	"syscall"
)

func dieWithParent(attr *syscall.SysProcAttr) {
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGKILL
	}
}

// followsThread tells whether the process would be signalled at the end of the thread that starts it. FreeBSD's
// PROC_PDEATHSIG_CTL speaks of the parent process; Linux's PR_SET_PDEATHSIG of the parent thread.
func followsThread(attr *syscall.SysProcAttr) bool {
	return runtime.GOOS == "linux" && attr.Pdeathsig != 0
}
