package preforkhttp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
)

// acceptQueueLimit is how long a stopping worker accepts connections from the
// accept queue.
const acceptQueueLimit = time.Second

// acceptRetry is how long an Accept waits while the queue is drained. Another
// worker may have accepted the connection that was in the queue.
const acceptRetry = 10 * time.Millisecond

// A queueListener stops accepting without leaving connections in the accept
// queue. In a reload, the next worker would accept them. When the program exits
// there is none, and the kernel would reset them. A worker cannot distinguish
// the two cases, so it always drains the queue. A listener whose queue cannot be
// checked is closed at once.
//
// During a pause it accepts nothing: connections in the queue wait for a worker
// that is not paused. A listener without deadlines may accept one more
// connection.
type queueListener struct {
	net.Listener
	deadlines deadlineListener // nil: Accept cannot be interrupted, nor the queue checked
	conn      syscall.RawConn

	drainUntil  atomic.Pointer[time.Time]     // nil before the drain
	paused      atomic.Pointer[chan struct{}] // closed at the end of the pause; nil without one
	interrupted atomic.Bool                   // by a pause, which may have ended
	closed      atomic.Bool
}

type deadlineListener interface {
	SetDeadline(time.Time) error
	syscall.Conn
}

func newQueueListener(ln net.Listener) *queueListener {
	l := &queueListener{Listener: ln}
	if d, ok := ln.(deadlineListener); ok {
		if conn, err := d.SyscallConn(); err == nil {
			l.deadlines, l.conn = d, conn
		}
	}
	return l
}

// unblock undoes the effect of File and Fd, by which programs set options of a
// listener: they make its socket blocking, also for all other workers.
func (l *queueListener) unblock() {
	if l.conn != nil {
		l.conn.Control(func(descriptor uintptr) { fd.SetBlocking(int(descriptor), false) })
	}
}

// drain makes Accept return the connections in the queue, and then
// net.ErrClosed.
func (l *queueListener) drain() {
	until := time.Now().Add(acceptQueueLimit)
	l.drainUntil.Store(&until)
	if !l.interrupt() {
		l.Close()
	}
}

// interrupt ends a waiting Accept, and reports whether that is possible.
func (l *queueListener) interrupt() bool {
	return l.deadlines != nil && l.deadlines.SetDeadline(time.Now()) == nil
}

// Close also ends an Accept that waits for the end of a pause.
func (l *queueListener) Close() error {
	l.closed.Store(true) // before resume: Accept must not wait for a new pause
	l.resume()
	return l.Listener.Close()
}

func (l *queueListener) pause() {
	paused := make(chan struct{})
	l.paused.Store(&paused)
	l.interrupted.Store(true)
	l.interrupt()
}

func (l *queueListener) resume() {
	if paused := l.paused.Swap(nil); paused != nil {
		close(*paused)
	}
}

// awaitResume waits until there is no pause. Callers of interrupt store the
// reason first. If awaitResume clears their deadline, it finds the reason
// afterwards.
func (l *queueListener) awaitResume() {
	for paused := l.paused.Load(); paused != nil && !l.closed.Load(); paused = l.paused.Load() {
		<-*paused
		if l.deadlines != nil {
			l.deadlines.SetDeadline(time.Time{})
		}
	}
	if l.drainUntil.Load() != nil {
		l.interrupt()
	}
}

// Accept implements net.Listener.
func (l *queueListener) Accept() (net.Conn, error) {
	l.awaitResume()
	nc, err := l.Listener.Accept()
	for errors.Is(err, os.ErrDeadlineExceeded) {
		until := l.drainUntil.Load()
		switch {
		case until != nil && (time.Now().After(*until) || !queued(l.conn)):
			l.Close()
			return nil, net.ErrClosed
		case until != nil:
			l.deadlines.SetDeadline(time.Now().Add(acceptRetry))
		case l.interrupted.Swap(false):
			l.deadlines.SetDeadline(time.Time{})
			l.awaitResume()
		default:
			return nc, err // a deadline of the program
		}
		nc, err = l.Listener.Accept()
	}
	if err != nil {
		return nc, err
	}
	return track(nc), nil
}
