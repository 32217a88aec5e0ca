//go:build linux || freebsd || netbsd || openbsd || dragonfly

package inherit

import "golang.org/x/sys/unix"

// receive reads what there is, and makes descriptors close-on-exec from the beginning.
func receive(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}
