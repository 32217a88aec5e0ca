package preforkhttp

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// conns keeps the open connections of one server, as its ConnState hook tells of them. The hook runs twice for
// every request, so it touches nothing that connections share: what it does costs the same however many connections and
// processors there are. Who asks about all of them pays instead, in a drain, and looks the less often the longer it takes.
type conns struct {
	byConn sync.Map // net.Conn: *connection
	coming sync.Map // net.Conn: *exchange, of those of which no state was told yet

	hijacked func(*exchange) // called when a connection is

	began   time.Time     // times are counted from here: the clock is read once for it, and twice for one of the day
	changed chan struct{} // holds a token after a change, for the one goroutine that waits for it
}

type connection struct {
	nc net.Conn
	x  *exchange

	mu      sync.Mutex     // of what follows
	state   http.ConnState // StateNew, StateActive or StateIdle
	since   time.Duration  // of state
	expired bool
}

func newConns() *conns {
	return &conns{hijacked: func(*exchange) {}, began: time.Now(), changed: make(chan struct{}, 1)}
}

// setState is the ConnState hook. For every connection net/http reports StateNew first, before Serve can return, and
// one of StateClosed and StateHijacked last. HTTP/2 connections are active while they have a stream.
func (c *conns) setState(nc net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		conn := &connection{nc: nc, since: time.Since(c.began)}
		if x, ok := c.coming.LoadAndDelete(nc); ok {
			conn.x = x.(*exchange)
		}
		c.byConn.Store(nc, conn)
	case http.StateActive, http.StateIdle:
		e, ok := c.byConn.Load(nc)
		if !ok {
			return // the program has called the hook itself
		}
		e.(*connection).set(state, time.Since(c.began))
	case http.StateClosed, http.StateHijacked:
		e, ok := c.byConn.LoadAndDelete(nc)
		if !ok {
			return
		}
		if x := e.(*connection).x; x != nil && state == http.StateHijacked {
			c.hijacked(x)
		}
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (conn *connection) set(state http.ConnState, now time.Duration) {
	conn.mu.Lock()
	conn.state, conn.since = state, now
	conn.mu.Unlock()
}

// all calls do with each open connection, locked, until it returns false.
func (c *conns) all(do func(*connection) bool) {
	c.byConn.Range(func(_, e any) bool {
		conn := e.(*connection)
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return do(conn)
	})
}

// none reports whether no connection is open.
func (c *conns) none() bool {
	none := true
	c.all(func(*connection) bool {
		none = false
		return false
	})
	return none
}

// quiet reports whether no connection is open, or no request is under way and no connection has changed its
// state for limit. If not, it may be so after again, or after a change.
func (c *conns) quiet(limit time.Duration) (quiet bool, again time.Duration) {
	now := time.Since(c.began)
	quiet = true
	c.all(func(conn *connection) bool {
		if conn.state == http.StateActive {
			quiet, again = false, limit // only a change helps; to look again does no harm
			return false
		}
		if left := limit - (now - conn.since); left > 0 {
			quiet, again = false, max(again, left)
		}
		return true
	})
	return quiet, again
}

// expire makes the connections that wait for a request end, but those of HTTP/2, which have a better way. plainHTTP2
// says that connections without TLS may be HTTP/2 as well.
//
// It closes them for reading only. The goroutine that reads then either finds a request, which came in time and
// is answered, or the end, and closes the connection itself at once. A close from here would lose each
// request that lies in the socket or has been read and not begun: observed on loopback with clients as likely to
// send as not, 1.9 % of the connections against none. (Unix sockets tell the peer: its next write fails with
// EPIPE, without a byte sent. Systems other than Linux may drop what lies in the socket, as a close does.)
//
// It reports whether one is spared, since it has begun a request meanwhile.
func (c *conns) expire(plainHTTP2 bool) (spared bool) {
	c.all(func(conn *connection) bool {
		if conn.http2(plainHTTP2) {
			return true
		}
		if conn.state == http.StateActive {
			spared = true
			return true
		}
		conn.expired = true
		nc := conn.nc
		if tc, ok := nc.(*tls.Conn); ok {
			nc = tc.NetConn()
		}
		if r, ok := nc.(interface{ CloseRead() error }); ok {
			r.CloseRead()
		} else {
			nc.Close()
		}
		return true
	})
	return spared
}

// http2 reports whether the connection speaks HTTP/2, or may: without TLS that is seen only when a request has come. In StateNew none does yet, and it must
// not be asked: ConnectionState waits for the handshake, which may wait for the client.
func (conn *connection) http2(plainHTTP2 bool) bool {
	if conn.state == http.StateNew {
		return false
	}
	if tc, ok := conn.nc.(*tls.Conn); ok {
		return tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	return plainHTTP2 && (conn.x == nil || !conn.x.http1.Load())
}

// settled reports whether the connections that expire told to end have done so.
func (c *conns) settled() bool {
	settled := true
	c.all(func(conn *connection) bool {
		settled = !conn.expired
		return settled
	})
	return settled
}
