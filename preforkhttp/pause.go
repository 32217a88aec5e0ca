package preforkhttp

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// A pauser is a *prefork.Worker, reduced to its methods for pausing.
type pauser interface {
	Pausing() <-chan struct{}
	Resumed() <-chan struct{}
	Checkpoint() bool
}

// A barrier holds requests during a pause, and counts those that it admitted.
type barrier struct {
	shut        atomic.Pointer[chan struct{}] // nil while requests are admitted
	inFlight    atomic.Int64
	anyHijacked atomic.Bool   // some connection was hijacked at some time
	idle        chan struct{} // holds a token after inFlight became 0 behind a shut barrier
}

func newBarrier() barrier { return barrier{idle: make(chan struct{}, 1)} }

// enter waits while the barrier is shut, and returns false if ctx ends first. It
// calls beforeWait before it waits.
//
// enter counts a request before it checks the barrier, and shutting the barrier
// comes before reading the count: one of the two sees the other.
func (b *barrier) enter(ctx context.Context, beforeWait func()) (admitted, waited bool) {
	for {
		b.inFlight.Add(1)
		shut := b.shut.Load()
		if shut == nil {
			return true, waited
		}
		b.done()
		if !waited {
			beforeWait()
		}
		waited = true
		select {
		case <-*shut:
		case <-ctx.Done(): // not earlier: Done makes a channel
			return false, true
		}
	}
}

// leave counts a request as finished, unless hijacked has done so.
func (b *barrier) leave(r *http.Request) {
	if b.anyHijacked.Load() {
		if info := infoOf(r); info != nil && info.hijacked.Load() {
			return
		}
	}
	b.done()
}

// hijacked counts the request that hijacked the connection as finished.
func (b *barrier) hijacked(info *connInfo) {
	b.anyHijacked.Store(true) // first: leave reads info only after it
	info.hijacked.Store(true)
	b.done()
}

func (b *barrier) done() {
	if b.inFlight.Add(-1) == 0 && b.shut.Load() != nil {
		select {
		case b.idle <- struct{}{}:
		default:
		}
	}
}

func (b *barrier) close() {
	shut := make(chan struct{})
	b.shut.Store(&shut)
}

func (b *barrier) open() {
	if shut := b.shut.Swap(nil); shut != nil {
		close(*shut)
	}
}

// admit calls enter with a request. It does not admit a request whose client
// disconnects while it waits. net/http notices that only for a request without a
// body: it does not read from the connection before the body is read.
func (d *drainer) admit(w http.ResponseWriter, r *http.Request) (admitted, waited bool) {
	admitted, waited = d.barrier.enter(r.Context(), func() { d.stopTimers(w) })
	if admitted {
		return true, waited
	}
	// The context also ends with the context of the program, or after closeRead. The
	// client is still there then.
	if info := infoOf(r); info != nil && (info.readClosed.Load() || info.program.Err() != nil) {
		d.barrier.enter(context.Background(), func() {})
		return true, true
	}
	return false, true
}

// runPauses handles pauses until the drain begins or serving has ended. Then it
// admits all requests.
func (d *drainer) runPauses(ctx context.Context, served <-chan struct{}, p pauser,
	ln *queueListener) {
	for d.pauseOnce(ctx, served, p, ln) {
		d.barrier.open()
		ln.resume()
	}
	if ctx.Err() != nil {
		d.draining.Store(true) // for the responses to requests that have waited
	}
	d.barrier.open()
	ln.resume()
}

// pauseOnce waits for a pause and its end, and reports whether there may be
// another.
func (d *drainer) pauseOnce(ctx context.Context, served <-chan struct{}, p pauser,
	ln *queueListener) (more bool) {
	select {
	case <-p.Pausing():
	case <-ctx.Done():
		return false
	case <-served:
		return false
	}
	ln.pause()
	d.barrier.close() // after it, so that requests on the last connection wait too
	for d.barrier.inFlight.Load() > 0 {
		select {
		case <-d.barrier.idle:
		case <-p.Resumed():
			return true
		case <-ctx.Done():
			return false
		case <-served:
			return false
		}
	}
	resumed := make(chan bool, 1)
	go func() { resumed <- p.Checkpoint() }()
	select {
	case more := <-resumed:
		return more
	case <-served:
		return false
	}
}

// stopTimers removes the deadlines of a request that is about to wait: each
// request of HTTP/2 has timers of its own, which would end it during the pause.
func (d *drainer) stopTimers(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	if d.srv.ReadTimeout > 0 {
		c.SetReadDeadline(time.Time{})
	}
	if d.srv.WriteTimeout > 0 {
		c.SetWriteDeadline(time.Time{})
	}
}

// restartTimers gives a request that has waited its full timeouts. After an
// HTTP/1 request without a body net/http already reads, without a deadline, to
// notice a disconnect. It would take an exceeded deadline for one.
func (d *drainer) restartTimers(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if d.srv.ReadTimeout > 0 && r.Body != http.NoBody {
		c.SetReadDeadline(time.Now().Add(d.srv.ReadTimeout))
	}
	if d.srv.WriteTimeout > 0 {
		c.SetWriteDeadline(time.Now().Add(d.srv.WriteTimeout))
	}
}
