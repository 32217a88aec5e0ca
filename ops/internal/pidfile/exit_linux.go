package pidfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// WatchExit returns a channel that is closed when the process that holds the
// lock on a file has exited, or no longer holds it when WatchExit is called.
// The channel is nil if the system cannot report the exit. The process may
// belong to any user. The caller must call release when it stops waiting.
func WatchExit(path string, pid int) (exited <-chan struct{}, release func()) {
	if pid <= 0 {
		return nil, func() {}
	}
	c := make(chan struct{})
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == unix.ESRCH {
		close(c)
		return c, func() {}
	} else if err != nil {
		return nil, func() {}
	}
	// The pid is checked after the pidfd is open: if the holder had exited
	// and its pid was recycled, the new process does not hold the lock.
	if now, held, _ := Holder(path); !held || now != pid {
		unix.Close(fd)
		close(c)
		return c, func() {}
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The runtime's poller waits for the pidfd; closing f wakes it.
		if conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) }) == nil {
			close(c)
		}
	}()
	return c, func() {
		f.Close()
		<-done
	}
}

// hasExited reports whether the process of a pidfd has exited. It also
// reports true for a zombie.
func hasExited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
