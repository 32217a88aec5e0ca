//go:build unix && !(linux || freebsd || netbsd || openbsd || dragonfly)

package fd

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// receive reads one message. These systems (macOS) lack MSG_CMSG_CLOEXEC, so
// the lock keeps this program from forking before the flag is set. The socket
// is non-blocking, so receive holds the lock only briefly.
func receive(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, 0)
	if err == nil {
		for _, fd := range descriptors(oob[:oobn]) {
			unix.CloseOnExec(fd)
		}
	}
	return n, oobn, flags, err
}
