package preforkhttp

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
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

	plainHTTP2 bool            // connections without TLS may be HTTP/2
	hijacked   func(*connInfo) // called when a connection is hijacked

	// Times are relative to epoch: reading the clock takes one call for a
	// duration, two for a time of day.
	epoch   time.Time
	changed chan struct{} // holds a token after a change, for one goroutine
}

type connection struct {
	nc       net.Conn
	info     *connInfo
	tracking *tracking // nil for a connection of another type

	mu         sync.Mutex     // guards the fields below
	state      http.ConnState // StateNew, StateActive or StateIdle
	since      time.Duration  // the time of the last change
	readClosed bool           // by closeIdle, without tracking

	begin uint32 // tracking.reads at the last change of state
	reads uint32 // tracking.reads at the last change
}

// connInfo is shared by a connection and the requests on it.
type connInfo struct {
	hijacked   atomic.Bool
	readClosed atomic.Bool     // as in connection
	http1      atomic.Bool     // a request was HTTP/1, on a connection that may be HTTP/2
	program    context.Context // of BaseContext and ConnContext; a disconnect does not end it
	tracking   *tracking       // nil for a connection of another type
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
	if t := trackingOf(nc); t != nil {
		_, isTLS := nc.(*tls.Conn)
		t.plain = !isTLS
	}
	info := &connInfo{program: ctx, tracking: trackingOf(nc)}
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
		conn := c.find(nc)
		if conn == nil {
			return // the program has called the hook itself
		}
		conn.setState(state, time.Since(c.epoch))
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

// find returns the connection of nc, or nil. Twice for every request, so without
// the map if possible.
func (c *conns) find(nc net.Conn) *connection {
	if t := trackingOf(nc); t != nil {
		return t.conn
	}
	conn, _ := c.byConn.Load(nc)
	found, _ := conn.(*connection)
	return found
}

// notify reports a change to a survey.
func (c *conns) notify() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *conns) add(nc net.Conn) {
	conn := &connection{nc: nc, tracking: trackingOf(nc), since: time.Since(c.epoch)}
	if info, ok := c.pending.LoadAndDelete(nc); ok {
		conn.info = info.(*connInfo)
	}
	if conn.tracking != nil {
		conn.tracking.conn = conn
	}
	c.byConn.Store(nc, conn)
}

func (conn *connection) setState(state http.ConnState, now time.Duration) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	conn.state, conn.since = state, now
	if t := conn.tracking; t != nil {
		conn.begin = t.reads.Load()
		conn.reads = conn.begin
		if state == http.StateActive {
			t.spare()
		}
	}
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

// idle is a survey that reports whether no request is in flight and nothing has
// happened on any connection for limit. If not, that may be so after retry or
// after a change. A header that has begun to arrive has at least hurryLimit for
// its next part.
func (c *conns) idle(limit time.Duration) (idle bool, retry time.Duration) {
	now := time.Since(c.epoch)
	idle = true
	c.each(func(conn *connection) bool {
		if conn.state == http.StateActive {
			idle, retry = false, limit // only a change helps; another survey does no harm
			return false
		}
		limit := limit
		if t := conn.tracking; t != nil && !conn.http2(c.plainHTTP2) {
			if n := t.reads.Load(); n != conn.reads {
				conn.reads, conn.since = n, now
			}
			if conn.reads != conn.begin {
				limit = max(limit, hurryLimit)
			}
		}
		if left := limit - (now - conn.since); left > 0 {
			idle, retry = false, max(retry, left)
		}
		return true
	})
	return idle, retry
}

// closeIdle closes the connections without a request in flight, except those of
// HTTP/2, which Shutdown closes without loss, and those on which a request has
// begun to arrive. plainHTTP2 means that connections without TLS may be HTTP/2.
//
// A full close would lose each request that is in the socket, or that was read
// and not begun: 1.9 % of the connections against none, observed on loopback with
// clients as likely to send as not.
func (c *conns) closeIdle(plainHTTP2 bool) {
	c.each(func(conn *connection) bool {
		switch {
		case conn.http2(plainHTTP2), conn.state == http.StateActive:
		case conn.tracking == nil:
			conn.closeRead()
		case conn.tracking.reads.Load() == conn.reads:
			conn.tracking.expire(conn.reads, c.notify)
		}
		return true
	})
}

// closeRead closes a connection without tracking, for reading. The goroutine that
// reads then reads a request that arrived in time, and answers it, or the end of
// the stream, and closes the connection at once. Systems other than Linux may
// discard the data in the socket, as a full close does.
func (conn *connection) closeRead() {
	nc := conn.nc
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if sc, ok := nc.(syscall.Conn); ok {
		if sys, err := sc.SyscallConn(); err == nil && queued(sys) {
			return // a request arrives
		}
	}
	conn.readClosed = true
	if conn.info != nil {
		conn.info.readClosed.Store(true)
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
// has closed are gone, or serve a request after all.
func (c *conns) idleClosed() (closed bool, _ time.Duration) {
	closed = true
	c.each(func(conn *connection) bool {
		t := conn.tracking
		closed = !conn.readClosed && (t == nil || !t.expired.Load())
		return closed
	})
	return closed, 0
}

// onlyHTTP2 reports whether all open connections are HTTP/2.
func (c *conns) onlyHTTP2(plainHTTP2 bool) (only bool) {
	only = true
	c.each(func(conn *connection) bool {
		only = conn.http2(plainHTTP2)
		return only
	})
	return only
}
