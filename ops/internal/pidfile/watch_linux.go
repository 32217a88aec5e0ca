package pidfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Watch returns a channel that is closed when the process that holds the file has ended, or does not hold it by now. It is
// nil where the system cannot tell. Watching is allowed for the processes of all users. release ends it.
func Watch(path string, pid int) (ended <-chan struct{}, release func()) {
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
	// Only now is it certain whose pid it is: had its holder ended before, it would not hold the file.
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
		// The runtime's poller waits. Closing f ends it.
		if conn.Read(func(fd uintptr) bool { return hasEnded(int(fd)) }) == nil {
			close(c)
		}
	}()
	return c, func() {
		f.Close()
		<-done
	}
}

// hasEnded tells whether the process of a pidfd has ended, be it a zombie or not.
func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
