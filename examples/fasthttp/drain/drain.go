// Package drain stops a fasthttp server without losing a request.
package drain

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Serve serves srv on ln until ctx ends, and then drains: it accepts the
// connections in the accept queue of ln, and adds "Connection: close" to every
// response until no connection is open. It calls fasthttp's Shutdown last.
//
// Serve wraps srv.Handler and replaces srv.ConnState. If srv.ReadTimeout or
// srv.IdleTimeout is zero, Serve sets it. Otherwise a client that keeps a
// connection open and sends nothing would delay the drain.
//
// Shutdown alone, called when ctx ends, closes connections between two requests
// without notice, and loses a request that is on its way. CloseOnShutdown helps
// little, because it adds "close" only to responses that are written while
// Shutdown waits. TestComparison in examples/fasthttp counts the lost requests.
func Serve(ctx context.Context, ln net.Listener, srv *fasthttp.Server) error {
	setTimeouts(srv)
	d := hook(srv)
	queue := &queueListener{Listener: ln}
	context.AfterFunc(ctx, func() {
		d.draining.Store(true)
		queue.drain()
	})
	if err := srv.Serve(queue); err != nil || ctx.Err() == nil {
		return err
	}
	d.conns.Wait()
	// No connection is open. Shutdown stops the goroutines of the Server.
	return srv.ShutdownWithContext(context.Background())
}

func setTimeouts(srv *fasthttp.Server) {
	if srv.ReadTimeout == 0 {
		srv.ReadTimeout = 10 * time.Second // also before the first request of a connection
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = 5 * time.Second // between two requests
	}
}

// A drainer counts the connections of a server.
type drainer struct {
	draining atomic.Bool // responses have "Connection: close"
	conns    sync.WaitGroup
}

// hook installs a drainer as Handler and ConnState of the server.
func hook(srv *fasthttp.Server) *drainer {
	d := new(drainer)
	handler := srv.Handler
	srv.Handler = func(ctx *fasthttp.RequestCtx) {
		handler(ctx)
		if d.draining.Load() && !ctx.Hijacked() { // a hijacked connection belongs to the program
			ctx.SetConnectionClose()
		}
	}
	srv.ConnState = func(_ net.Conn, state fasthttp.ConnState) {
		switch state {
		case fasthttp.StateNew:
			d.conns.Add(1)
		case fasthttp.StateClosed, fasthttp.StateHijacked:
			d.conns.Done()
		}
	}
	return d
}
