//go:build unix

package proc

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// controlPair returns the two ends of a control socket, both close-on-exec. The
// manager's end is non-blocking. O_NONBLOCK belongs to one end, so it does not
// affect the process.
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

// readControl reads from a control socket. Any error except ErrWouldBlock means
// that the socket is at its end.
func readControl(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case n > 0, err == nil && len(p) == 0:
			return n, nil
		case err == nil, err == unix.ECONNRESET:
			// The kernel resets a Unix socket if its peer dies with unread
			// data.
			return 0, io.EOF
		case err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case err != unix.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// writeControl writes to a control socket. Without MSG_NOSIGNAL, a program that
// traps SIGPIPE would receive a signal that this write caused.
func writeControl(fd int, p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := unix.SendmsgN(fd, p[written:], nil, nil, unix.MSG_NOSIGNAL)
		written += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS: // the BSDs can return ENOBUFS for a full Unix socket
			return written, ErrWouldBlock
		default:
			return written, os.NewSyscallError("sendmsg", err)
		}
	}
	return written, nil
}

// writeControlFile writes p to a control socket with a descriptor, which the
// kernel attaches to the first byte. The kernel writes all of p or nothing:
// Linux queues up to half of the socket's buffer as one unit, and the BSDs
// write nothing while the room is below their low-water mark of 2 KiB. If a
// kernel wrote only a part, the remainder must follow at once. Otherwise the
// process could not decode the next message.
func writeControlFile(fd int, p []byte, file int) error {
	rights := unix.UnixRights(file)
	for {
		n, err := unix.SendmsgN(fd, p, rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case n > 0 && n < len(p):
			if _, err := writeControl(fd, p[n:]); err != nil {
				return fmt.Errorf("partial message in the control socket: %w", os.NewSyscallError("sendmsg", unix.EMSGSIZE))
			}
			return nil
		case err == nil:
			return nil
		case err == unix.EAGAIN, err == unix.ENOBUFS, err == unix.ETOOMANYREFS:
			// ETOOMANYREFS: more descriptors in flight than this user may open.
			return ErrWouldBlock
		case err != unix.EINTR:
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
