//go:build unix && !(linux || freebsd || netbsd || openbsd || dragonfly)

package inherit

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// receive reads what there is. Without MSG_CMSG_CLOEXEC (macOS) the lock keeps this program from forking before the flag
// is set; the socket is non-blocking, so that it is not held for long.
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
