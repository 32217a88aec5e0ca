package marker

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepParentDeathSignal returns a function that sets the parent-death signal of
// this thread again. The kernel clears it when the thread changes its user. If
// the parent dies before that, there is no signal any more, so the process ends
// by itself.
func keepParentDeathSignal() (restore func()) {
	runtime.LockOSThread()
	parent := os.Getppid()
	var sig int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&sig)), 0, 0, 0); err != nil || sig == 0 {
		return func() {}
	}
	return func() {
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0)
		if os.Getppid() != parent {
			syscall.Kill(os.Getpid(), syscall.Signal(sig))
		}
	}
}
