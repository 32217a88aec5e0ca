package drain

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acceptQueueLimit is how long a stopping worker accepts connections from the
// accept queue. Clients may connect faster than the worker accepts.
const acceptQueueLimit = time.Second

// acceptRetry is how long an Accept waits while the queue is drained. Another
// worker may have accepted the connection that was in the queue.
const acceptRetry = 10 * time.Millisecond

// A queueListener stops accepting without leaving connections in the accept
// queue. In a reload, the next worker would accept them. When the program exits
// there is none. A worker cannot distinguish the two cases, so it always drains
// the queue.
type queueListener struct {
	net.Listener
	drainUntil atomic.Pointer[time.Time] // nil before the drain
}

// drain makes Accept return the connections in the queue, and then
// net.ErrClosed.
func (l *queueListener) drain() {
	until := time.Now().Add(acceptQueueLimit)
	l.drainUntil.Store(&until)
	if !l.setTimeout(0) { // interrupts an Accept
		l.Close()
	}
}

// setTimeout limits how long Accept waits, and reports whether that is
// possible.
func (l *queueListener) setTimeout(d time.Duration) bool {
	ln, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && ln.SetDeadline(time.Now().Add(d)) == nil
}

// Accept implements net.Listener. It returns net.ErrClosed at the end of the
// drain, so that Serve of fasthttp returns no error.
func (l *queueListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	for until := l.drainUntil.Load(); until != nil && errors.Is(err, os.ErrDeadlineExceeded); {
		if time.Now().After(*until) || !l.queued() || !l.setTimeout(acceptRetry) {
			l.Close()
			return nil, net.ErrClosed
		}
		nc, err = l.Listener.Accept()
	}
	return nc, err
}

// queued reports whether the accept queue has a connection.
func (l *queueListener) queued() (yes bool) {
	ln, ok := l.Listener.(syscall.Conn)
	if !ok {
		return false
	}
	if conn, err := ln.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			yes = err == nil && n > 0
		})
	}
	return yes
}

// Close closes the listener. Further calls are no-ops, because Shutdown of
// fasthttp closes the listener again.
func (l *queueListener) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
