package preforkhttp

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tracking lets a drain close an idle connection without losing what the client
// sends in that moment. The goroutine of net/http that waits for a request
// decides: it alone knows whether the request has begun. Closing the connection
// for reading instead would cut a request whose header was read and whose body
// has not arrived: 158 of 400 at most, observed on loopback.
type tracking struct {
	nc      net.Conn
	sys     syscall.RawConn
	plain   bool          // no TLS; set before the first Read
	conn    *connection   // set with StateNew, before the first Read
	reads   atomic.Uint32 // the Reads that returned data
	expired atomic.Bool   // the drain has closed it, unless a request begins
	last    atomic.Bool   // the response closes the connection because of the drain

	mu       sync.Mutex // guards the fields below
	deadline time.Time  // set by net/http or the program
	seen     uint32     // reads when the connection was last found idle
	spared   func()     // called when a request has begun after all
}

// A tcpConn is a *net.TCPConn with tracking.
type tcpConn struct {
	*net.TCPConn
	tracking
}

// A unixConn is a *net.UnixConn with tracking.
type unixConn struct {
	*net.UnixConn
	tracking
}

// track adds tracking to a connection. Other types than these two stay as they
// are: net/http and programs look for the methods of a *tls.Conn, and of types
// of their own.
func track(nc net.Conn) net.Conn {
	switch c := nc.(type) {
	case *net.TCPConn:
		if sys, err := c.SyscallConn(); err == nil {
			return &tcpConn{c, tracking{nc: c, sys: sys}}
		}
	case *net.UnixConn:
		if sys, err := c.SyscallConn(); err == nil {
			return &unixConn{c, tracking{nc: c, sys: sys}}
		}
	}
	return nc
}

// trackingOf returns the tracking of a connection or of the one below TLS; nil
// for none.
func trackingOf(nc net.Conn) *tracking {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	switch c := nc.(type) {
	case *tcpConn:
		return &c.tracking
	case *unixConn:
		return &c.tracking
	}
	return nil
}

// untracked returns the connection as the program knows it.
func untracked(nc net.Conn) net.Conn {
	switch c := nc.(type) {
	case *tcpConn:
		return c.TCPConn
	case *unixConn:
		return c.UnixConn
	}
	return nc
}

// Close lingers first.
func (c *tcpConn) Close() error {
	c.linger()
	return c.TCPConn.Close()
}

// Close lingers first.
func (c *unixConn) Close() error {
	c.linger()
	return c.UnixConn.Close()
}

func (c *tcpConn) Read(p []byte) (int, error)         { return c.read(p) }
func (c *tcpConn) SetReadDeadline(t time.Time) error  { return c.setReadDeadline(t) }
func (c *tcpConn) SetDeadline(t time.Time) error      { return c.setDeadline(t) }
func (c *unixConn) Read(p []byte) (int, error)        { return c.read(p) }
func (c *unixConn) SetReadDeadline(t time.Time) error { return c.setReadDeadline(t) }
func (c *unixConn) SetDeadline(t time.Time) error     { return c.setDeadline(t) }

func (t *tracking) read(p []byte) (n int, err error) {
	for {
		n, err = t.nc.Read(p)
		if n > 0 {
			t.reads.Add(1)
		}
		if err == nil || !t.expired.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if !t.requestBegun() {
			if t.plain {
				t.nc.Close() // at once: what arrives from here on is lost
			}
			return 0, io.EOF
		}
	}
}

// requestBegun reports whether a request has begun on an expired connection, and
// spares it then.
func (t *tracking) requestBegun() bool {
	t.mu.Lock()
	seen := t.seen
	t.mu.Unlock()
	if t.reads.Load() == seen && !queued(t.sys) {
		return false
	}
	t.spare()
	return true
}

// expire makes the goroutine that waits for a request close the connection,
// unless it has read since reads had the value seen, or something has arrived.
func (t *tracking) expire(seen uint32, spared func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen, t.spared = seen, spared
	t.expired.Store(true)
	t.nc.SetReadDeadline(time.Unix(1, 0)) // wakes a Read
}

// spare undoes expire.
func (t *tracking) spare() {
	if !t.expired.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nc.SetReadDeadline(t.deadline)
	t.expired.Store(false)
	t.spared()
}

func (t *tracking) setReadDeadline(deadline time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deadline = deadline
	if t.expired.Load() {
		return nil // spare sets it
	}
	return t.nc.SetReadDeadline(deadline)
}

func (t *tracking) setDeadline(deadline time.Time) error {
	return errors.Join(t.setReadDeadline(deadline), t.nc.SetWriteDeadline(deadline))
}

// lingerLimit is how long linger waits for the client.
const lingerLimit = time.Second

// linger lets the client read the last response of a drain before the connection
// is closed, if more has arrived from it, such as pipelined requests. To close a
// connection with unread data is to reset it: the kernel then discards the
// responses that it has not sent. Two of some 2.5 million requests failed by it,
// in reloads under load on loopback.
func (t *tracking) linger() {
	if !t.last.Swap(false) || !queued(t.sys) {
		return
	}
	c, ok := t.nc.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	t.nc.SetReadDeadline(time.Now().Add(lingerLimit))
	io.Copy(io.Discard, struct{ io.Reader }{t.nc})
}
