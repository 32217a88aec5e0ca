package preforkhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// errServerReused is returned if the hooks of the server are those of another
// call.
var errServerReused = errors.New("preforkhttp: Serve was called twice with one http.Server: " +
	"use one Server for each listener, with the same Handler")

// serveWithLimits serves until ctx ends, with one of the methods of srv that
// serve, and drains the server. If p is nil there are no pauses. It calls begin,
// unless that is nil, when the drain begins.
func serveWithLimits(ctx context.Context, p pauser, l limits, begin func(), ln net.Listener,
	srv *http.Server, accept func(net.Listener) error) error {
	if _, ok := srv.Handler.(*drainer); ok {
		return errServerReused
	}
	d := hook(srv)
	// Only closing the listener ends srv.Serve without changing srv: after
	// Shutdown, net/http discards every request that it reads.
	queue := newQueueListener(ln)
	queue.unblock()
	d.limit.Store(int64(l.idle))
	callHooks := onBegin(srv, begin)
	served, drained := make(chan struct{}), make(chan struct{})
	defer close(drained)
	stop := context.AfterFunc(ctx, func() {
		d.draining.Store(true)
		callHooks()
		queue.drain()
		d.hurry(l, drained)
	})
	if p != nil {
		go d.runPauses(ctx, served, p, queue)
	}
	err := accept(queue)
	close(served)
	if !stop() {
		return d.drain()
	}
	if errors.Is(err, http.ErrServerClosed) {
		d.await(d.conns.closed)
		return nil
	}
	return err
}

// A drainer wraps the Handler of a server.
type drainer struct {
	srv        *http.Server
	plainHTTP2 bool         // connections without TLS may be HTTP/2
	options    bool         // answer "OPTIONS *" in place of net/http
	handler    http.Handler // the program's
	conns      *conns
	barrier    barrier

	limit    atomic.Int64 // for idle connections, a time.Duration
	draining atomic.Bool  // responses have "Connection: close"
}

// hook installs a drainer as Handler, ConnContext and ConnState of the server.
func hook(srv *http.Server) *drainer {
	d := &drainer{srv: srv, handler: srv.Handler, conns: newConns(), barrier: newBarrier()}
	d.conns.hijacked = d.barrier.hijacked
	d.plainHTTP2 = srv.Protocols != nil && srv.Protocols.UnencryptedHTTP2()
	d.conns.plainHTTP2 = d.plainHTTP2
	if d.handler == nil {
		d.handler = http.DefaultServeMux
	}
	srv.Handler = d
	d.options = !srv.DisableGeneralOptionsHandler
	srv.DisableGeneralOptionsHandler = true

	connContext := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, untracked(nc))
		}
		return d.conns.connContext(ctx, nc)
	}
	connState := srv.ConnState
	srv.ConnState = func(nc net.Conn, state http.ConnState) {
		if connState != nil {
			// First: before Serve returns, the program has seen all states.
			connState(untracked(nc), state)
		}
		d.conns.setState(nc, state)
	}
	return d
}

// ServeHTTP adds "Connection: close" before it calls the program's Handler, or to
// a request with an Upgrade header when that has answered. If a request is
// already in its Handler when the drain begins, only the next response on its
// connection has the header. Reaching the first would need a wrapper of the
// ResponseWriter for every request, and would save only that one.
func (d *drainer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.options && r.Method == http.MethodOptions && r.RequestURI == "*" {
		if d.draining.Load() {
			w.Header().Set("Connection", "close")
			defer isLast(r)
		}
		serveOptions(w, r)
		return
	}
	if d.plainHTTP2 && r.ProtoMajor == 1 {
		if info := infoOf(r); info != nil {
			info.http1.Store(true)
		}
	}
	admitted, waited := d.admit(w, r)
	if waited {
		d.restartTimers(w, r)
	}
	if !admitted {
		refuse(w, r)
		return
	}
	defer d.barrier.leave(r)
	if info := infoOf(r); info != nil && info.readClosed.Load() && r.ProtoMajor == 1 {
		complete := false
		if r, complete = detach(r); !complete {
			refuse(w, r)
			return
		}
	}
	switch {
	case !d.draining.Load():
		d.handler.ServeHTTP(w, r)
	case r.Header.Get("Upgrade") == "" || r.ProtoMajor != 1:
		w.Header().Set("Connection", "close")
		d.handler.ServeHTTP(w, r)
		isLast(r)
	default:
		cw := &closingWriter{ResponseWriter: w}
		d.handler.ServeHTTP(cw, r)
		cw.begin(http.StatusOK) // if it wrote nothing
		isLast(r)
	}
}

// isLast notes that the response to r closes its connection.
func isLast(r *http.Request) {
	info := infoOf(r)
	if info != nil && info.tracking != nil && r.ProtoMajor == 1 && !info.hijacked.Load() {
		info.tracking.last.Store(true)
	}
}

// maxDetached is the size of a body up to which detach reads it.
const maxDetached = 8 << 20

// detach returns a request with its body read. Its connection is closed for
// reading, so more of the body cannot arrive, and an incomplete one must not reach
// a handler. net/http also reads the end of the stream there, takes it for a
// disconnect of the client, and cancels the context of a request that must be
// answered.
func detach(r *http.Request) (_ *http.Request, complete bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxDetached+1))
	if err != nil || len(body) > maxDetached {
		return r, false
	}
	r = r.WithContext(context.WithoutCancel(r.Context()))
	if r.Body != http.NoBody {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r, true
}

// refuse answers a request that is not begun: its client seems to have
// disconnected, or its body is incomplete. A client that has closed only its side
// of the connection looks the same and reads the response.
func refuse(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 { // over HTTP/2 it would end the connection for all requests
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// hurry reduces the limit for idle connections if the drain must end soon.
func (d *drainer) hurry(l limits, drained <-chan struct{}) {
	var late <-chan time.Time
	if l.late > 0 {
		late = time.After(l.late)
	}
	select {
	case <-l.interrupted:
	case <-late:
	case <-drained:
		return
	}
	d.limit.Store(int64(min(l.idle, hurryLimit)))
	d.conns.notify()
}

// drain returns when no connection is open. The listener is closed and srv.Serve
// has returned, so there are no new connections.
func (d *drainer) drain() error {
	d.draining.Store(true) // the AfterFunc may not have run yet
	// A connection on which a request begins then is spared, and the drain
	// continues: after Shutdown, net/http would discard its request.
	for again := true; again; again = !d.conns.onlyHTTP2(d.plainHTTP2) {
		d.await(func() (bool, time.Duration) { return d.conns.idle(time.Duration(d.limit.Load())) })
		d.conns.closeIdle(d.plainHTTP2)
		d.await(d.conns.idleClosed)
	}
	// Only HTTP/2 connections are left. Shutdown sends them GOAWAY, by which that
	// protocol loses no request.
	return d.srv.Shutdown(context.Background())
}

// await waits until survey, which visits all connections, reports true. It calls
// survey again after a change of a connection, or after the time that survey
// returns; zero means only after a change.
func (d *drainer) await(survey func() (done bool, retry time.Duration)) {
	for {
		began := time.Now()
		done, retry := survey()
		if done {
			return
		}
		time.Sleep(surveyPause(time.Since(began)))
		var timeout <-chan time.Time
		if retry > 0 {
			timeout = time.After(retry)
		}
		select {
		case <-d.conns.changed:
		case <-timeout:
		}
	}
}

const (
	surveyPauseFactor = 10
	maxSurveyPause    = 100 * time.Millisecond
)

// surveyPause returns the pause after a survey. With thousands of connections
// and steady requests, surveys without pauses would take the processor from the
// requests.
func surveyPause(survey time.Duration) time.Duration {
	return min(surveyPauseFactor*survey, maxSurveyPause)
}
