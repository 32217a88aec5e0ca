//go:build unix

package inherit

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDescriptors is how many descriptors one read takes. A manager sends one with a message.
const maxDescriptors = 8

// ReadControl reads from the control socket as io.Reader says, and takes the descriptors that came with what it read;
// they are close-on-exec and belong to the caller. It blocks its goroutine alone. io.EOF is the end of the socket. One
// goroutine reads.
//
// A descriptor comes with the first byte of the message that it was sent with, also where a read cuts the message, and
// where bytes of messages before it come in the same read. So when such a message is complete, its descriptor is there;
// and since both come in the order in which they were sent, it is the first of those that have come and were not used
// yet. -1 stands for one that is lost, which happens to a process that may open no more: its message comes all the same.
// (That needs a manager that sends one descriptor with a message, and a kernel that ends a read with the message that had
// one. Linux does.)
func ReadControl(conn syscall.RawConn, buf []byte) (n int, fds []int, err error) {
	if len(buf) == 0 {
		return 0, nil, nil
	}
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	oobn, flags := 0, 0
	cerr := conn.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, err = receive(int(fd), buf, oob)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case cerr != nil:
		return 0, nil, cerr
	case err == unix.ECONNRESET:
		return 0, nil, io.EOF // a peer that died with something unread
	case err != nil:
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	fds = descriptors(oob[:oobn])
	if flags&unix.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		fds = []int{-1}
	}
	if n == 0 {
		return 0, fds, io.EOF
	}
	return n, fds, nil
}

// descriptors are those in a control message.
func descriptors(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if some, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}
