//go:build unix

package preforkhttp

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// fakePauser is a pauser without a worker.
type fakePauser struct {
	ctx        context.Context
	shut       chan bool // Resumed was called: the barrier is shut
	checkpoint chan bool // Checkpoint was called during a pause

	mu               sync.Mutex
	paused           bool
	pausing, resumed chan struct{}
}

func (p *fakePauser) set(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused = paused; paused {
		select {
		case <-p.shut: // of the previous pause
		default:
		}
		p.resumed = make(chan struct{})
		close(p.pausing)
	} else {
		p.pausing = make(chan struct{})
		close(p.resumed)
	}
}

func (p *fakePauser) Pausing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pausing
}

func (p *fakePauser) Resumed() <-chan struct{} {
	select {
	case p.shut <- true:
	default:
	}
	return p.resumedChan()
}

func (p *fakePauser) resumedChan() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resumed
}

func (p *fakePauser) Checkpoint() bool {
	select {
	case <-p.resumedChan():
	default:
		p.checkpoint <- true
		select {
		case <-p.resumedChan():
		case <-p.ctx.Done():
		}
	}
	return p.ctx.Err() == nil
}

// awaitPaused waits until the server has paused.
func (p *fakePauser) awaitPaused(t *testing.T) {
	t.Helper()
	select {
	case <-p.checkpoint:
	case <-time.After(long):
		t.Fatal("the server has not paused")
	}
}

// startPausing is start with pauses and a limit of 50 ms.
func startPausing(t *testing.T, ln net.Listener, srv *http.Server) (*server, *fakePauser) {
	t.Helper()
	srv.ErrorLog = log.New(io.Discard, "", 0)
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{t, ln.Addr(), cancel, nil, make(chan error, 1)}
	p := &fakePauser{ctx: ctx,
		shut: make(chan bool, 1), checkpoint: make(chan bool, 1000),
		pausing: make(chan struct{}), resumed: make(chan struct{}),
	}
	close(p.resumed)
	go func() {
		s.done <- serveWithLimits(ctx, p, limits{idle: 50 * time.Millisecond}, nil, ln, srv, srv.Serve)
	}()
	t.Cleanup(func() { cancel(); srv.Close() })
	return s, p
}

// noResponse fails the test if the client receives a response.
func (c *client) noResponse() {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.br.Peek(1); err == nil {
		c.t.Error("response during the pause")
	}
	c.nc.SetDeadline(time.Now().Add(long))
}
