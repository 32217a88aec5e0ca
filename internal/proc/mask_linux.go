package proc

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// unblockSignals makes the process that this thread starts next block no signal,
// until restore. A program that a JVM or .NET has started may have inherited
// blocked signals, which Go unblocks only for its own handlers. A Command would
// then never receive a signal that is sent to it.
//
// A signal that was blocked may be pending for the manager, and would end it.
// The manager therefore catches it from now on.
func unblockSignals() (restore func()) {
	runtime.LockOSThread()
	var none, old unix.Sigset_t
	if unix.PthreadSigmask(unix.SIG_SETMASK, nil, &old) != nil || old == none {
		runtime.UnlockOSThread()
		return func() {}
	}
	for _, sig := range members(&old) {
		signal.Notify(discarded, sig)
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
	return func() {
		unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}
}

// discarded receives the signals that the manager was started with blocked.
// Nothing reads it, so that the others are dropped.
var discarded = make(chan os.Signal, 1)

// members returns the signals of a set that a program can catch.
func members(set *unix.Sigset_t) (all []os.Signal) {
	bits := 8 * int(wordBytes)
	for n := 1; n <= 64; n++ {
		if set.Val[(n-1)/bits]&(1<<uint((n-1)%bits)) != 0 {
			all = append(all, syscall.Signal(n))
		}
	}
	return all
}

const wordBytes = 4 << (^uint(0) >> 63) // of a word of a set
