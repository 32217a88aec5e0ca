//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package proc

import "golang.org/x/sys/unix"

// awaitEnd waits until a child has ended, and leaves it to be waited for. False says that it could not.
func awaitEnd(pid int) bool {
	kq, err := unix.Kqueue() // not inherited by a fork
	if err != nil {
		return false
	}
	defer unix.Close(kq)
	var ev unix.Kevent_t
	unix.SetKevent(&ev, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	ev.Fflags = unix.NOTE_EXIT
	// Most of these systems do not watch a zombie, and a child that was not waited for and is not found can be nothing else.
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
