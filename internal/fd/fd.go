//go:build unix

package fd

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// first is the lowest descriptor above the standard streams.
const first = 3

// Duplicate returns a close-on-exec duplicate of fd. The duplicate is never one
// of the standard streams.
func Duplicate(fd uintptr) (int, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, first)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return n, nil
}

// Close closes fd. Processes that have inherited it keep their copy.
func Close(fd int) { unix.Close(fd) }

// IsStream reports whether the standard stream fd is open. If the stream was
// closed, a file of the program or of this library may have got its number;
// such a file is close-on-exec, and a stream never is.
func IsStream(fd uintptr) bool {
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// SetBlocking sets or clears the blocking mode of a socket. The mode applies to
// all processes that share the socket.
func SetBlocking(fd int, blocking bool) error {
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, !blocking))
}

// Blocks reports whether a socket is in blocking mode.
func Blocks(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK == 0
}

// SetBacklog sets the length of the accept queue of a listening socket. The
// system limits it.
func SetBacklog(fd, n int) error { return os.NewSyscallError("listen", unix.Listen(fd, n)) }

// Chmod sets the mode with which bind makes the file of a unix socket. Only Linux
// supports it; elsewhere it is a no-op.
func Chmod(raw uintptr, mode uint32) error {
	if err := unix.Fchmod(int(raw), mode); err != unix.EINVAL {
		return os.NewSyscallError("fchmod", err)
	}
	return nil
}

// A manager that replaces a socket's file holds the lock for some milliseconds.
// Another program may lock the directory for any time, so LockDir waits no
// longer than lockWait and retries every lockPause.
const (
	lockWait  = time.Second
	lockPause = 5 * time.Millisecond
)

// LockDir locks an open directory, by flock, until unlock is called. It leaves no
// file behind. If another program holds the lock, LockDir waits for one second
// and then returns an error with the path.
func LockDir(dir uintptr, path string) (unlock func(), err error) {
	for began := time.Now(); ; {
		switch err := unix.Flock(int(dir), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { unix.Flock(int(dir), unix.LOCK_UN) }, nil
		case err == unix.EINTR:
		case err == unix.EWOULDBLOCK && time.Since(began) < lockWait:
			time.Sleep(lockPause)
		case err == unix.EWOULDBLOCK:
			return nil, fmt.Errorf("another program holds a lock, by flock, on the directory %s", path)
		case err == unix.EBADF: // opened with O_PATH
			return nil, fmt.Errorf("the directory %s cannot be read, and so not be locked", path)
		default:
			return nil, os.NewSyscallError("flock", err)
		}
	}
}
