//go:build unix

package fd

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDescriptors is how many descriptors one read accepts. A manager sends one
// with a message.
const maxDescriptors = 8

// ReadControl reads from a control socket like io.Reader and returns the
// descriptors that arrived with the data. The descriptors are close-on-exec and
// belong to the caller. ReadControl blocks only its goroutine, and returns
// io.EOF at the end of the socket. Only one goroutine may call it.
//
// The kernel delivers a descriptor with the first byte of its message, even if
// the read splits that message or also returns bytes of earlier messages. So a
// descriptor has arrived once its message is complete. Messages and descriptors
// arrive in the order in which they were sent: a complete message owns the
// first descriptor that no earlier message used.
//
// A descriptor of -1 replaces one that was lost, which happens if this process
// has reached its limit of open files. The message arrives nevertheless. This
// requires a manager that sends one descriptor with a message, and a kernel
// that ends a read after a message with a descriptor, as Linux does.
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
		return 0, nil, io.EOF // the peer died with unread data
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

// descriptors returns the descriptors in a control message.
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
