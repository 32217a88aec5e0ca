package preforkhttp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// lastCall bounds how long a worker that was told to stop goes on accepting what has queued.
const lastCall = time.Second

// lastCallListener ends a worker's accepting without leaving anybody in the queue. In a reload the connections that
// nobody has accepted yet would wait for the next worker; when the program ends there is none, and the kernel would
// reset them. A worker cannot tell the one from the other, so the queue is emptied in both.
type lastCallListener struct {
	net.Listener
	deadline deadliner
	conn     syscall.RawConn
	ends     atomic.Pointer[time.Time] // set when accepting is to end
}

type deadliner interface {
	SetDeadline(time.Time) error
	syscall.Conn
}

// newLastCall wraps a listener whose queue can be looked at, and says whether it is one: another is just closed.
func newLastCall(ln net.Listener) (*lastCallListener, bool) {
	d, ok := ln.(deadliner)
	if !ok {
		return nil, false
	}
	conn, err := d.SyscallConn()
	return &lastCallListener{Listener: ln, deadline: d, conn: conn}, err == nil
}

// end makes Accept return what is queued, and then net.ErrClosed.
func (l *lastCallListener) end() {
	ends := time.Now().Add(lastCall)
	l.ends.Store(&ends)
	if l.deadline.SetDeadline(time.Now()) != nil { // wakes an Accept that waits
		l.Close()
	}
}

func (l *lastCallListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	for errors.Is(err, os.ErrDeadlineExceeded) {
		ends := l.ends.Load()
		if ends == nil {
			return nc, err // a deadline of the program's own
		}
		if time.Now().After(*ends) || !queued(l.conn) {
			l.Close()
			return nil, net.ErrClosed
		}
		// Another worker may be faster; then this ends soon, and the queue is looked at again.
		l.deadline.SetDeadline(time.Now().Add(10 * time.Millisecond))
		nc, err = l.Listener.Accept()
	}
	return nc, err
}
