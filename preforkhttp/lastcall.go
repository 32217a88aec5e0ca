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
// reset them. A worker cannot tell the one from the other, so the queue is emptied in both. A listener whose queue cannot be
// looked at is just closed.
//
// During a pause it accepts nothing: what has queued waits for a worker that goes on. A listener that cannot be woken may
// accept one connection more.
type lastCallListener struct {
	net.Listener
	deadline deadliner // nil: it cannot be woken, nor its queue be looked at
	conn     syscall.RawConn
	ends     atomic.Pointer[time.Time]     // set when accepting is to end
	paused   atomic.Pointer[chan struct{}] // closed when it goes on
	woken    atomic.Bool                   // for a pause, which may be over by now
	closed   atomic.Bool
}

type deadliner interface {
	SetDeadline(time.Time) error
	syscall.Conn
}

func newLastCall(ln net.Listener) *lastCallListener {
	l := &lastCallListener{Listener: ln}
	if d, ok := ln.(deadliner); ok {
		if conn, err := d.SyscallConn(); err == nil {
			l.deadline, l.conn = d, conn
		}
	}
	return l
}

// end makes Accept return what is queued, and then net.ErrClosed.
func (l *lastCallListener) end() {
	ends := time.Now().Add(lastCall)
	l.ends.Store(&ends)
	if !l.wake() {
		l.Close()
	}
}

// wake ends an Accept that waits.
func (l *lastCallListener) wake() bool {
	return l.deadline != nil && l.deadline.SetDeadline(time.Now()) == nil
}

// Close ends an Accept that waits for the end of a pause, too.
func (l *lastCallListener) Close() error {
	l.closed.Store(true) // before: a pause that begins now is not waited for
	l.goOn()
	return l.Listener.Close()
}

func (l *lastCallListener) pause() {
	paused := make(chan struct{})
	l.paused.Store(&paused)
	l.woken.Store(true)
	l.wake()
}

func (l *lastCallListener) goOn() {
	if paused := l.paused.Swap(nil); paused != nil {
		close(*paused)
	}
}

// await waits while there is a pause. Whoever sets a deadline to wake Accept has said before what for, so one that is cleared
// here is not lost: what it was for is looked at after.
func (l *lastCallListener) await() {
	for paused := l.paused.Load(); paused != nil && !l.closed.Load(); paused = l.paused.Load() {
		<-*paused
		if l.deadline != nil {
			l.deadline.SetDeadline(time.Time{})
		}
	}
	if l.ends.Load() != nil {
		l.wake()
	}
}

func (l *lastCallListener) Accept() (net.Conn, error) {
	l.await()
	nc, err := l.Listener.Accept()
	for errors.Is(err, os.ErrDeadlineExceeded) {
		ends := l.ends.Load()
		switch {
		case ends != nil && (time.Now().After(*ends) || !queued(l.conn)):
			l.Close()
			return nil, net.ErrClosed
		case ends != nil:
			// Another worker may be faster; then this ends soon, and the queue is looked at again.
			l.deadline.SetDeadline(time.Now().Add(10 * time.Millisecond))
		case l.woken.Swap(false):
			l.deadline.SetDeadline(time.Time{})
			l.await()
		default:
			return nc, err // a deadline of the program's own
		}
		nc, err = l.Listener.Accept()
	}
	return nc, err
}
