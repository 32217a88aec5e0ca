//go:build unix

package proc

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// controlPair returns the two ends of a control socket, both close-on-exec, the first one non-blocking. O_NONBLOCK
// belongs to each end by itself: how the process uses its own is not changed.
func controlPair() (ours, theirs int, err error) {
	fds, err := socketpair()
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, -1, os.NewSyscallError("fcntl", err)
	}
	return fds[0], fds[1], nil
}

// readControl reads from a control socket. ErrWouldBlock leaves the socket as it is; any other error is its end.
func readControl(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case n > 0, err == nil && len(p) == 0:
			return n, nil
		case err == nil, err == unix.ECONNRESET:
			// A Unix socket is reset, and not just at its end, when its peer dies with something unread.
			return 0, io.EOF
		case err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case err != unix.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// writeControl writes to a control socket. MSG_NOSIGNAL spares a program that traps SIGPIPE a signal of ours.
func writeControl(fd int, p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := unix.SendmsgN(fd, p[written:], nil, nil, unix.MSG_NOSIGNAL)
		written += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS: // the BSDs' word for a full Unix socket can be ENOBUFS
			return written, ErrWouldBlock
		default:
			return written, os.NewSyscallError("sendmsg", err)
		}
	}
	return written, nil
}
