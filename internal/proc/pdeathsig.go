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

// followsThread reports whether the kernel signals the process when the thread
// that started it exits. Linux's PR_SET_PDEATHSIG refers to the parent thread,
// FreeBSD's PROC_PDEATHSIG_CTL to the parent process.
func followsThread(attr *syscall.SysProcAttr) bool {
	return runtime.GOOS == "linux" && attr.Pdeathsig != 0
}
