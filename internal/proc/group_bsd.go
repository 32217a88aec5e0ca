//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package proc

import "golang.org/x/sys/unix"

// AwaitExit waits until a child has exited, and leaves it as a zombie. It
// returns false if it could not wait.
func AwaitExit(pid int) bool {
	kq, err := unix.Kqueue() // a fork does not inherit it
	if err != nil {
		return false
	}
	defer unix.Close(kq)
	var ev unix.Kevent_t
	unix.SetKevent(&ev, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	ev.Fflags = unix.NOTE_EXIT
	// Most of these systems do not watch a zombie. A child that was not waited
	// for and is not found must be one.
	if _, err := unix.Kevent(kq, []unix.Kevent_t{ev}, nil, nil); err != nil {
		return err == unix.ESRCH
	}
	for {
		n, err := unix.Kevent(kq, nil, make([]unix.Kevent_t, 1), nil)
		if err != unix.EINTR {
			return n == 1 && err == nil
		}
	}
}
