//go:build unix

package capture

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
)

// reader waits for a pipe without a thread and without a buffer.
type reader struct {
	conn syscall.RawConn

	// The functions are made once, because each would be allocated.
	ready, next func(fd uintptr) bool

	buf []byte // what next reads into, and its result
	n   int
	err error
}

// newPipe makes a pipe, and returns the end for the worker as well. That end is
// in blocking mode, which most programs expect.
func newPipe(w *Worker, stream Stream) (*pipe, *os.File, error) {
	r, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p := &pipe{w: w, c: w.c, stream: stream, r: r}
	p.conn, err = r.SyscallConn()
	if err == nil {
		var raw uintptr
		if raw, err = fd.Raw(write); err == nil {
			err = fd.SetBlocking(int(raw), true)
		}
	}
	if err != nil {
		r.Close()
		write.Close()
		return nil, nil, err
	}
	p.ready = func(fd uintptr) bool {
		stirred := p.stirred()
		return readable(int(fd)) || stirred
	}
	p.next = func(fd uintptr) bool {
		for {
			p.n, p.err = unix.Read(int(fd), p.buf)
			if p.err != unix.EINTR {
				return true
			}
		}
	}
	return p, write, nil
}

// readable reports whether a read would return at once.
func readable(fd int) bool {
	poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll[:], 0)
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
	}
}

// wait returns when there is something to read, or something to do about an
// empty pipe.
func (p *pipe) wait() {
	for errors.Is(p.conn.Read(p.ready), os.ErrDeadlineExceeded) {
		p.r.SetReadDeadline(time.Time{}) // see wake
	}
}

// wake makes wait look again.
func (p *pipe) wake() { p.r.SetReadDeadline(time.Unix(1, 0)) }

// read reads what the pipe has. Unlike File.Read it ignores the deadline.
func (p *pipe) read(buf []byte) (int, error) {
	p.buf = buf
	err := p.conn.Control(func(fd uintptr) { p.next(fd) })
	p.buf = nil
	switch {
	case err != nil:
		return 0, err
	case p.err == unix.EAGAIN:
		return 0, errEmpty
	case p.err != nil:
		return 0, p.err
	case p.n == 0:
		return 0, io.EOF
	}
	return p.n, nil
}
