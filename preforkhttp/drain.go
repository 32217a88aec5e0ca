package preforkhttp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// errTwice: the server's hooks are those of another call already.
var errTwice = errors.New("preforkhttp: Serve was called twice with one http.Server; use one for each listener, with the same Handler")

// serve is Serve without a Worker: it drains when ctx ends.
func serve(ctx context.Context, limit time.Duration, ln net.Listener, srv *http.Server) error {
	return serveBy(ctx, nil, limit, ln, srv, srv.Serve)
}

// serveBy is serve with one of srv's methods that serve, and with pauses, if there can be any.
func serveBy(ctx context.Context, p pauser, limit time.Duration, ln net.Listener, srv *http.Server, by func(net.Listener) error) error {
	if _, ok := srv.Handler.(*drainer); ok {
		return errTwice
	}
	d := hook(srv)
	// Closing the listener is the only way to end srv.Serve that leaves no mark on srv: once Shutdown has been called,
	// net/http throws away every request that it reads.
	last := newLastCall(ln)
	stop := context.AfterFunc(ctx, func() {
		d.draining.Store(true)
		last.end()
	})
	ended := make(chan struct{})
	if p != nil {
		go d.heedPauses(ctx, ended, p, last)
	}
	err := by(last)
	close(ended)
	if !stop() {
		return d.drain(limit)
	}
	if errors.Is(err, http.ErrServerClosed) {
		d.wait(d.conns.none)
		return nil
	}
	return err
}

// drainer stands in front of a server's Handler.
type drainer struct {
	srv     *http.Server
	plain2  bool         // connections without TLS may be HTTP/2 as well
	next    http.Handler // the program's
	conns   *conns
	barrier barrier

	draining atomic.Bool // tell clients to close
	ending   atomic.Bool // connections are being expired
}

// hook puts a drainer in front of the program's Handler, ConnContext and ConnState.
func hook(srv *http.Server) *drainer {
	d := &drainer{srv: srv, next: srv.Handler, conns: newConns(), barrier: barrier{quiet: make(chan struct{}, 1)}}
	d.conns.hijacked = d.barrier.hijacked
	d.plain2 = srv.Protocols != nil && srv.Protocols.UnencryptedHTTP2()
	if d.next == nil {
		d.next = http.DefaultServeMux
	}
	srv.Handler = d

	userContext := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if userContext != nil {
			ctx = userContext(ctx, nc)
		}
		return d.conns.connContext(ctx, nc)
	}
	user := srv.ConnState
	srv.ConnState = func(nc net.Conn, state http.ConnState) {
		if user != nil {
			user(nc, state) // first: when serve returns, the program has been told everything
		}
		d.conns.setState(nc, state)
	}
	return d
}

// ServeHTTP says "Connection: close" before the program's Handler runs. A request that is already in its Handler when
// the drain begins is answered as if nothing had happened, and the next one on its connection is told to close:
// reaching the first would need a wrapper around the ResponseWriter, which hides what programs look
// for in it (Flusher, Hijacker, ReaderFrom), and would win nothing but that one request.
func (d *drainer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.plain2 && r.ProtoMajor == 1 {
		if x, ok := r.Context().Value(connectionKey{}).(*exchange); ok {
			x.http1.Store(true)
		}
	}
	passed, waited := d.admit(w, r)
	if waited {
		d.afresh(w, r)
	}
	if !passed {
		// A client that has ended its side alone looks the same, and is there to read it.
		if r.ProtoMajor == 1 { // HTTP/2 would end the connection for all of its requests
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer d.barrier.leave(r)
	// A response to an Upgrade may copy its header as it stands (httputil.ReverseProxy does), and "close" ahead of
	// "Upgrade" would break the handshake.
	if d.draining.Load() && r.Header.Get("Upgrade") == "" {
		w.Header().Set("Connection", "close")
	}
	// On an expired connection net/http sees the end of the stream behind the request, takes it for a client that has
	// gone, and cancels the context of a request that is to be answered.
	if d.ending.Load() && r.ProtoMajor == 1 {
		r = r.WithContext(context.WithoutCancel(r.Context()))
	}
	d.next.ServeHTTP(w, r)
}

// drain returns when nothing is open any more. The listener is closed, and srv.Serve has returned: no connection is added.
func (d *drainer) drain(limit time.Duration) error {
	d.draining.Store(true) // the AfterFunc may be late
	// A connection that begins a request between the look and its end is spared, and the drain begins anew: after Shutdown
	// net/http would throw that request away.
	for spared := true; spared; {
		d.awaitQuiet(limit)
		d.ending.Store(true)
		spared = d.conns.expire(d.plain2)
		d.wait(d.conns.settled)
	}
	// What is left are HTTP/2 connections. Shutdown sends them GOAWAY, by which that protocol loses no request.
	return d.srv.Shutdown(context.Background())
}

func (d *drainer) awaitQuiet(limit time.Duration) {
	for {
		began := time.Now()
		quiet, again := d.conns.quiet(limit)
		if quiet {
			return
		}
		pauseAfter(began)
		select {
		case <-d.conns.changed:
		case <-time.After(again):
		}
	}
}

// wait returns when done, which a change of the connections can make true.
func (d *drainer) wait(done func() bool) {
	for began := time.Now(); !done(); began = time.Now() {
		pauseAfter(began)
		<-d.conns.changed
	}
}

// pauseAfter is a pause behind a look at all connections: with thousands of them, and requests that go on, the looks would
// take the processor from the requests.
func pauseAfter(began time.Time) { time.Sleep(min(10*time.Since(began), 100*time.Millisecond)) }
