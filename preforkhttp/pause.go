package preforkhttp

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// pauser is what a *prefork.Worker has for pausing.
type pauser interface {
	Pausing() <-chan struct{}
	Resumed() <-chan struct{}
	Checkpoint() bool
}

// barrier holds back requests during a pause, and knows when those that have passed it are finished.
type barrier struct {
	shut    atomic.Pointer[chan struct{}] // nil while requests may pass
	running atomic.Int64                  // requests that have passed and are not finished
	hijacks atomic.Bool                   // a connection was hijacked, some time
	quiet   chan struct{}                 // holds a token when running has come to 0 while the barrier was shut
}

// pass waits while the barrier is shut. A request is counted before the barrier is looked at, as the barrier is shut before the
// requests are counted: one of the two sees the other. It does not pass where ctx ends while it waits. Before it waits, it calls
// waits.
func (g *barrier) pass(ctx context.Context, waits func()) (passed, waited bool) {
	for {
		g.running.Add(1)
		shut := g.shut.Load()
		if shut == nil {
			return true, waited
		}
		g.done()
		if !waited {
			waits()
		}
		waited = true
		select {
		case <-*shut:
		case <-ctx.Done(): // not before: it makes a channel
			return false, true
		}
	}
}

// admit is pass for a request, which is not begun where its client has gone meanwhile. That is seen of one without a body alone:
// nothing reads the connection before a body is read.
func (d *drainer) admit(w http.ResponseWriter, r *http.Request) (passed, waited bool) {
	if passed, waited = d.barrier.pass(r.Context(), func() { d.stopTimers(w) }); passed {
		return true, waited
	}
	// Its context can also have ended with the program's own, or since the connection was expired; then somebody waits.
	x, ok := r.Context().Value(connectionKey{}).(*exchange)
	if d.ending.Load() || ok && x.program.Err() != nil {
		d.barrier.pass(context.Background(), func() {})
		return true, true
	}
	return false, true
}

func (g *barrier) done() {
	if g.running.Add(-1) == 0 && g.shut.Load() != nil {
		select {
		case g.quiet <- struct{}{}:
		default:
		}
	}
}

func (g *barrier) close() {
	shut := make(chan struct{})
	g.shut.Store(&shut)
}

func (g *barrier) open() {
	if shut := g.shut.Swap(nil); shut != nil {
		close(*shut)
	}
}

// heedPauses does what pauses ask for until the drain begins, or serving has ended. Then nothing is held back any more.
func (d *drainer) heedPauses(ctx context.Context, ended <-chan struct{}, p pauser, ln *lastCallListener) {
	for d.pause(ctx, ended, p, ln) {
		d.barrier.open()
		ln.goOn()
	}
	if ctx.Err() != nil {
		d.draining.Store(true) // so that who has waited is told to close
	}
	d.barrier.open()
	ln.goOn()
}

// pause waits for a pause and its end, and tells whether there may be another.
func (d *drainer) pause(ctx context.Context, ended <-chan struct{}, p pauser, ln *lastCallListener) bool {
	select {
	case <-p.Pausing():
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	}
	ln.pause()
	d.barrier.close() // behind it, so that a connection accepted meanwhile is held too
	for d.barrier.running.Load() > 0 {
		select {
		case <-d.barrier.quiet:
		case <-p.Resumed():
			return true
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		}
	}
	over := make(chan bool, 1)
	go func() { over <- p.Checkpoint() }()
	select {
	case again := <-over:
		return again
	case <-ended:
		return false
	}
}

// connectionKey is where a request finds its connection, in its context.
type connectionKey struct{}

// exchange is what a connection and the request on it share.
type exchange struct {
	hijacked atomic.Bool
	http1    atomic.Bool     // a request has come by HTTP/1, where that is not certain
	program  context.Context // of BaseContext and ConnContext: it does not end when the client goes
}

// connContext is the ConnContext hook, which comes before StateNew of the same connection.
func (c *conns) connContext(ctx context.Context, nc net.Conn) context.Context {
	x := &exchange{program: ctx}
	c.coming.Store(nc, x)
	return context.WithValue(ctx, connectionKey{}, x)
}

// leave counts a request as finished. One that has hijacked its connection was counted then.
func (g *barrier) leave(r *http.Request) {
	if g.hijacks.Load() {
		if x, ok := r.Context().Value(connectionKey{}).(*exchange); ok && x.hijacked.Load() {
			return
		}
	}
	g.done()
}

// hijacked counts a request as finished whose connection is the program's from now on.
func (g *barrier) hijacked(x *exchange) {
	g.hijacks.Store(true) // first: leave asks about x only then
	x.hijacked.Store(true)
	g.done()
}

// stopTimers takes the limits for being read and answered off a request that is about to wait: over HTTP/2 each has timers of
// its own, which would end it meanwhile.
func (d *drainer) stopTimers(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	if d.srv.ReadTimeout > 0 {
		c.SetReadDeadline(time.Time{})
	}
	if d.srv.WriteTimeout > 0 {
		c.SetWriteDeadline(time.Time{})
	}
}

// afresh gives a request that has waited the time that it would have had. Behind an HTTP/1 request without a body net/http reads
// already, without a limit, to see whether the client goes: with one that would be taken for such an end.
func (d *drainer) afresh(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if d.srv.ReadTimeout > 0 && r.Body != http.NoBody {
		c.SetReadDeadline(time.Now().Add(d.srv.ReadTimeout))
	}
	if d.srv.WriteTimeout > 0 {
		c.SetWriteDeadline(time.Now().Add(d.srv.WriteTimeout))
	}
}
