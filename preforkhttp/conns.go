package preforkhttp

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// conns keeps the open connections of one server, as its ConnState hook tells of them. The hook runs twice for
// every request, so what it does costs the same however many connections there are.
type conns struct {
	mu      sync.Mutex
	byConn  map[net.Conn]*list.Element // of *connection
	recent  list.List                  // the same; the one whose state changed last is at the back
	active  int                        // those with a request under way
	expired int                        // those that expire has told to end
	coming  map[net.Conn]*exchange     // those of which no state was told yet

	hijacked func() // called when a connection is

	changed chan struct{} // holds a token after a change, for the one goroutine that waits for it
}

type connection struct {
	nc      net.Conn
	state   http.ConnState // StateNew, StateActive or StateIdle
	since   time.Time      // of state
	expired bool
	x       *exchange
}

func newConns() *conns {
	return &conns{byConn: make(map[net.Conn]*list.Element), coming: make(map[net.Conn]*exchange), hijacked: func() {}, changed: make(chan struct{}, 1)}
}

// setState is the ConnState hook. For every connection net/http reports StateNew first, before Serve can return, and
// one of StateClosed and StateHijacked last. HTTP/2 connections are active while they have a stream.
func (c *conns) setState(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byConn[nc]
	if state == http.StateNew {
		e = c.recent.PushBack(&connection{nc: nc, x: c.coming[nc]})
		c.byConn[nc] = e
		delete(c.coming, nc)
	}
	if e == nil {
		return // the program has called the hook itself
	}
	conn := e.Value.(*connection)
	if conn.state == http.StateActive {
		c.active--
	}
	conn.state, conn.since = state, time.Now()
	switch state {
	case http.StateActive:
		c.active++
		c.recent.MoveToBack(e)
	case http.StateIdle:
		c.recent.MoveToBack(e)
	case http.StateClosed, http.StateHijacked:
		delete(c.byConn, nc)
		c.recent.Remove(e)
		if conn.expired {
			c.expired--
		}
	}
	if state == http.StateHijacked && conn.x != nil {
		conn.x.hijacked.Store(true)
		c.hijacked()
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// none reports whether no connection is open.
func (c *conns) none() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len() == 0
}

// quiet reports whether no connection is open, or no request is under way and no connection has changed its
// state for limit. If not, it may be so after again, or after a change.
func (c *conns) quiet(limit time.Duration) (quiet bool, again time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.recent.Back()
	if last == nil {
		return true, 0
	}
	again = limit - time.Since(last.Value.(*connection).since)
	if c.active > 0 {
		return false, max(again, limit) // only a change helps; to look again does no harm
	}
	return again <= 0, again
}

// expire makes the connections that wait for a request end, but those of HTTP/2, which have a better way. plainHTTP2
// says that connections without TLS may be HTTP/2 as well.
//
// It closes them for reading only. The goroutine that reads then either finds a request, which came in time and
// is answered, or the end, and closes the connection itself at once. A close from here would lose each
// request that lies in the socket or has been read and not begun: observed on loopback with clients as likely to
// send as not, 1.9 % of the connections against none. (Unix sockets tell the peer: its next write fails with
// EPIPE, without a byte sent. Systems other than Linux may drop what lies in the socket, as a close does.)
func (c *conns) expire(plainHTTP2 bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.recent.Front(); e != nil; e = e.Next() {
		conn := e.Value.(*connection)
		if conn.state == http.StateActive || conn.http2(plainHTTP2) {
			continue
		}
		conn.expired = true
		c.expired++
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
}

// http2 reports whether the connection speaks HTTP/2, or may. In StateNew none does yet, and it must
// not be asked: ConnectionState waits for the handshake, which may wait for the client.
func (conn *connection) http2(plainHTTP2 bool) bool {
	if conn.state == http.StateNew {
		return false
	}
	if tc, ok := conn.nc.(*tls.Conn); ok {
		return tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	return plainHTTP2
}

// settled reports whether the connections that expire told to end have done so.
func (c *conns) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expired == 0
}
