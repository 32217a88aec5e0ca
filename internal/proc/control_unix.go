//go:build unix

package proc

import (
	"fmt"
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

// writeControlFile writes p to a control socket with a descriptor. The kernel attaches it to the first byte. That no part
// of p stays behind is the kernel's doing, too: Linux queues up to half of the socket's buffer as one, or nothing; the
// BSDs write nothing while there is less room than their low-water mark of 2 KiB. If one wrote a part all the same, the
// rest must follow at once, or else the process cannot make sense of what comes after it.
func writeControlFile(fd int, p []byte, file int) error {
	rights := unix.UnixRights(file)
	for {
		n, err := unix.SendmsgN(fd, p, rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case n > 0 && n < len(p):
			if _, err := writeControl(fd, p[n:]); err != nil {
				return fmt.Errorf("a message was cut: %w", os.NewSyscallError("sendmsg", unix.EMSGSIZE))
			}
			return nil
		case err == nil:
			return nil
		case err == unix.EAGAIN, err == unix.ENOBUFS, err == unix.ETOOMANYREFS: // more descriptors under way than this user may open
			return ErrWouldBlock
		case err != unix.EINTR:
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
