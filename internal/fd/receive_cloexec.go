//go:build linux || freebsd || netbsd || openbsd || dragonfly

package fd

import "golang.org/x/sys/unix"

// receive reads one message. Its descriptors are close-on-exec from the start.
func receive(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}
