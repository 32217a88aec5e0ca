// Package drain ends a fasthttp server without losing a request.
package drain

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// Serve serves srv on ln until ctx ends. Then it accepts what has queued on ln, says "Connection: close" in every response
// until no connection is open, and calls fasthttp's Shutdown last. It takes srv's Handler and ConnState, and sets those of
// its ReadTimeout and IdleTimeout that are 0: a client that keeps a connection and sends nothing would hold up the
// draining without them.
//
// Shutdown alone, called when ctx ends, closes connections between two requests without a word, and the request
// that is on its way over one of them is lost; CloseOnShutdown helps little, as it says "close" only in responses that are
// written while Shutdown waits. TestComparison in examples/fasthttp shows how many that are.
func Serve(ctx context.Context, ln net.Listener, srv *fasthttp.Server) error {
	var draining atomic.Bool
	var conns sync.WaitGroup
	if srv.ReadTimeout == 0 {
		srv.ReadTimeout = 10 * time.Second // of a request, and before the first
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = 5 * time.Second // between two
	}
	handler := srv.Handler
	srv.Handler = func(ctx *fasthttp.RequestCtx) {
		handler(ctx)
		if draining.Load() && !ctx.Hijacked() { // that connection is the program's
			ctx.SetConnectionClose()
		}
	}
	srv.ConnState = func(_ net.Conn, state fasthttp.ConnState) {
		switch state {
		case fasthttp.StateNew:
			conns.Add(1)
		case fasthttp.StateClosed, fasthttp.StateHijacked:
			conns.Done()
		}
	}
	last := &lastCall{Listener: ln}
	context.AfterFunc(ctx, func() {
		draining.Store(true)
		last.begin()
	})
	if err := srv.Serve(last); err != nil || ctx.Err() == nil {
		return err
	}
	conns.Wait()
	return srv.ShutdownWithContext(context.Background()) // finds nothing open, and ends what the Server has running
}

// longestCall bounds how long lastCall accepts where connections come faster than they are taken.
const longestCall = time.Second

// lastCall is a listener that hands out what has queued when ctx ends, and then is closed. In a reload the next worker would
// take the queue; when the program ends nobody would, and a worker cannot tell the one from the other.
type lastCall struct {
	net.Listener
	ends atomic.Pointer[time.Time] // nil until ctx ends
}

func (l *lastCall) begin() {
	ends := time.Now().Add(longestCall)
	l.ends.Store(&ends)
	if !l.wait(0) { // wakes an Accept that waits
		l.Close()
	}
}

// wait bounds how long Accept waits, where the listener can do so.
func (l *lastCall) wait(d time.Duration) bool {
	ln, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && ln.SetDeadline(time.Now().Add(d)) == nil
}

func (l *lastCall) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	for ends := l.ends.Load(); ends != nil && errors.Is(err, os.ErrDeadlineExceeded); {
		if time.Now().After(*ends) || !l.queued() || !l.wait(10*time.Millisecond) {
			l.Close()
			return nil, net.ErrClosed // which fasthttp knows as the end
		}
		nc, err = l.Listener.Accept() // another worker may be faster
	}
	return nc, err
}

// queued tells whether a connection waits to be accepted.
func (l *lastCall) queued() (yes bool) {
	ln, ok := l.Listener.(syscall.Conn)
	if !ok {
		return false
	}
	if raw, err := ln.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			yes = err == nil && n > 0
		})
	}
	return yes
}

// Close may be called again: Shutdown does.
func (l *lastCall) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
