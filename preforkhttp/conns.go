package preforkhttp

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// conns holds the open connections of one server, as reported by its ConnState
// hook. The hook runs twice for every request, so it writes nothing that
// connections share: its cost does not depend on the number of connections and
// processors. A survey of all connections is expensive instead. Surveys happen
// in a drain only, and the longer they take, the rarer they are.
type conns struct {
	byConn  sync.Map // net.Conn: *connection
	pending sync.Map // net.Conn: *connInfo, before the first state is reported

	hijacked func(*connInfo) // called when a connection is hijacked

	// Times are relative to epoch: reading the clock takes one call for a
	// duration, two for a time of day.
	epoch   time.Time
	changed chan struct{} // holds a token after a change, for one goroutine
}

type connection struct {
	nc   net.Conn
	info *connInfo

	mu         sync.Mutex     // guards the fields below
	state      http.ConnState // StateNew, StateActive or StateIdle
	since      time.Duration  // the time of the last change of state
	readClosed bool           // by closeIdle
}

// connInfo is shared by a connection and the requests on it.
type connInfo struct {
	hijacked atomic.Bool
	http1    atomic.Bool     // a request was HTTP/1, on a connection that may be HTTP/2
	program  context.Context // of BaseContext and ConnContext; a disconnect does not end it
}

// connInfoKey is the key of the connInfo in the context of a request.
type connInfoKey struct{}

// infoOf returns the connInfo of the request's connection, or nil.
func infoOf(r *http.Request) *connInfo {
	info, _ := r.Context().Value(connInfoKey{}).(*connInfo)
	return info
}

func newConns() *conns {
	return &conns{
		hijacked: func(*connInfo) {},
		epoch:    time.Now(),
		changed:  make(chan struct{}, 1),
	}
}

// connContext is the ConnContext hook. net/http calls it before it reports
// StateNew of the same connection.
func (c *conns) connContext(ctx context.Context, nc net.Conn) context.Context {
	info := &connInfo{program: ctx}
	c.pending.Store(nc, info)
	return context.WithValue(ctx, connInfoKey{}, info)
}

// setState is the ConnState hook. For every connection, net/http first reports
// StateNew, before Serve can return, and last StateClosed or StateHijacked. An
// HTTP/2 connection is active while it has a stream.
func (c *conns) setState(nc net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.add(nc)
	case http.StateActive, http.StateIdle:
		conn, ok := c.byConn.Load(nc)
		if !ok {
			return // the program has called the hook itself
		}
		conn.(*connection).setState(state, time.Since(c.epoch))
	case http.StateClosed, http.StateHijacked:
		conn, ok := c.byConn.LoadAndDelete(nc)
		if !ok {
			return
		}
		if info := conn.(*connection).info; info != nil && state == http.StateHijacked {
			c.hijacked(info)
		}
	}
	c.notify()
}

// notify reports a change to a survey.
func (c *conns) notify() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *conns) add(nc net.Conn) {
	conn := &connection{nc: nc, since: time.Since(c.epoch)}
	if info, ok := c.pending.LoadAndDelete(nc); ok {
		conn.info = info.(*connInfo)
	}
	c.byConn.Store(nc, conn)
}

func (conn *connection) setState(state http.ConnState, now time.Duration) {
	conn.mu.Lock()
	conn.state, conn.since = state, now
	conn.mu.Unlock()
}

// each calls visit with each open connection, locked, until it returns false.
func (c *conns) each(visit func(*connection) bool) {
	c.byConn.Range(func(_, e any) bool {
		conn := e.(*connection)
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return visit(conn)
	})
}

// closed is a survey that reports whether no connection is open.
func (c *conns) closed() (closed bool, _ time.Duration) {
	closed = true
	c.each(func(*connection) bool {
		closed = false
		return false
	})
	return closed, 0
}

// idle is a survey that reports whether no request is in flight and no
// connection has changed its state for limit. If not, that may be so after retry
// or after a change.
func (c *conns) idle(limit time.Duration) (idle bool, retry time.Duration) {
	now := time.Since(c.epoch)
	idle = true
	c.each(func(conn *connection) bool {
		if conn.state == http.StateActive {
			idle, retry = false, limit // only a change helps; another survey does no harm
			return false
		}
		if left := limit - (now - conn.since); left > 0 {
			idle, retry = false, max(retry, left)
		}
		return true
	})
	return idle, retry
}

// closeIdle closes the connections without a request in flight, except those of
// HTTP/2, which Shutdown closes without loss. It reports whether it has spared a
// connection because a request has begun. plainHTTP2 means that connections
// without TLS may be HTTP/2.
//
// It closes connections only for reading. The goroutine that reads then reads a
// request that arrived in time, and answers it, or the end of the stream, and
// closes the connection at once. A full close would lose each request that is in
// the socket, or that was read and not begun: 1.9 % of the connections against
// none, observed on loopback with clients as likely to send as not.
//
// On a Unix socket the peer notices: its next write fails with EPIPE, without a
// byte sent. Systems other than Linux may discard the data in the socket, as a
// full close does.
func (c *conns) closeIdle(plainHTTP2 bool) (spared bool) {
	c.each(func(conn *connection) bool {
		switch {
		case conn.http2(plainHTTP2):
		case conn.state == http.StateActive:
			spared = true
		default:
			conn.closeRead()
		}
		return true
	})
	return spared
}

func (conn *connection) closeRead() {
	conn.readClosed = true
	nc := conn.nc
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if r, ok := nc.(interface{ CloseRead() error }); ok {
		r.CloseRead()
	} else {
		nc.Close()
	}
}

// http2 reports whether the connection is HTTP/2, or may be: without TLS only a
// request shows the protocol. In StateNew there is none yet, and ConnectionState
// must not be called: it waits for the handshake, which may wait for the client.
func (conn *connection) http2(plainHTTP2 bool) bool {
	if conn.state == http.StateNew {
		return false
	}
	if tc, ok := conn.nc.(*tls.Conn); ok {
		return tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	return plainHTTP2 && (conn.info == nil || !conn.info.http1.Load())
}

// idleClosed is a survey that reports whether the connections that closeIdle
// closed for reading are closed.
func (c *conns) idleClosed() (closed bool, _ time.Duration) {
	closed = true
	c.each(func(conn *connection) bool {
		closed = !conn.readClosed
		return closed
	})
	return closed, 0
}
