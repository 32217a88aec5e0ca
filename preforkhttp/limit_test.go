//go:build unix

package preforkhttp

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of in-memory connections, for tests with fake time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	interrupted chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{}), interrupted: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) interrupt()     { close(p.interrupted) }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial opens a connection. If request is not empty, it makes a request. It
// discards responses.
func (p *pipes) dial(request string) net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := here.Read(buf); err != nil {
				here.Close()
				return
			}
		}
	}()
	if request != "" {
		here.Write([]byte("GET " + request + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	synctest.Wait()
	return here
}

// A connection is closed after it was idle for the limit. A request has unlimited
// time.
func TestIdleLimit(t *testing.T) {
	const limit = 5 * time.Second // maxIdleLimit, as documented
	for _, c := range []struct {
		name  string
		setup func(p *pipes)
		want  time.Duration // duration of the drain
	}{
		{"nothing open", func(p *pipes) {}, 0},
		{"idle for a moment", func(p *pipes) { p.dial("/") }, limit},
		{"idle for part of the limit", func(p *pipes) {
			p.dial("/")
			time.Sleep(2 * time.Second)
		}, limit - 2*time.Second},
		{"idle for long", func(p *pipes) { p.dial("/"); time.Sleep(limit) }, 0},
		{"never sent anything", func(p *pipes) {
			p.dial("")
			time.Sleep(time.Second)
		}, limit - time.Second},
		{"one of several is idle for a moment", func(p *pipes) {
			p.dial("/")
			time.Sleep(time.Minute)
			p.dial("/")
		}, limit},
		{"the one that was idle for a moment is closed", func(p *pipes) {
			p.dial("/")
			time.Sleep(time.Minute)
			nc := p.dial("/")
			time.AfterFunc(time.Second, func() { nc.Close() })
		}, time.Second},
		{"request in flight, then idle", func(p *pipes) {
			p.dial("/20s")
			time.Sleep(time.Second)
		}, 19*time.Second + limit},
		{"request during the drain", func(p *pipes) {
			nc := p.dial("/")
			time.AfterFunc(4*time.Second, func() {
				nc.Write([]byte("GET /20s HTTP/1.1\r\nHost: x\r\n\r\n"))
			})
		}, 24 * time.Second},
		{"the client disconnects", func(p *pipes) {
			nc := p.dial("/")
			time.AfterFunc(time.Second, func() { nc.Close() })
		}, time.Second},
		{"interrupt", func(p *pipes) {
			p.dial("/")
			time.AfterFunc(time.Second, p.interrupt)
		}, time.Second},
		{"interrupt at once", func(p *pipes) {
			p.dial("/")
			p.interrupt()
		}, 100 * time.Millisecond},
		{"interrupt with a request in flight", func(p *pipes) {
			p.dial("/20s")
			p.dial("/")
			p.interrupt()
		}, 20*time.Second + 100*time.Millisecond},
		{"idle late in the drain", func(p *pipes) { p.dial("/20s") }, 24500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				handler := func(_ http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/20s" {
						time.Sleep(20 * time.Second)
					}
				}
				srv := &http.Server{Handler: http.HandlerFunc(handler)}
				l := limits{idle: maxIdleLimit, late: 24500 * time.Millisecond, interrupted: p.interrupted}
				go func() { done <- serveWithLimits(ctx, nil, l, nil, p, srv, srv.Serve) }()
				c.setup(p)
				begin := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if got := time.Since(begin).Round(10 * time.Millisecond); got != c.want {
					t.Errorf("the drain took %v, want %v", got, c.want)
				}
			})
		})
	}
}

// By default the limit leaves half of StopTimeout. It is never longer than the
// time after which net/http closes idle connections.
func TestIdleLimitOfOptions(t *testing.T) {
	for _, c := range []struct {
		option, stop, idle, read, want time.Duration
	}{
		{stop: 30 * time.Second, want: 5 * time.Second},
		{stop: -1, want: 5 * time.Second},
		{stop: 3 * time.Second, want: 1500 * time.Millisecond},
		{option: time.Minute, stop: 3 * time.Second, want: time.Minute},
		{option: -1, stop: 3 * time.Second, want: 0},
		{stop: 30 * time.Second, idle: time.Second, want: time.Second},
		{stop: 30 * time.Second, idle: time.Minute, want: 5 * time.Second},
		{option: time.Minute, stop: 30 * time.Second, idle: time.Second, want: time.Second},
		{stop: 30 * time.Second, read: 2 * time.Second, want: 2 * time.Second},
		{stop: 30 * time.Second, idle: 4 * time.Second, read: 2 * time.Second, want: 4 * time.Second},
		{stop: 30 * time.Second, idle: -1, read: 2 * time.Second, want: 5 * time.Second},
	} {
		srv := &http.Server{IdleTimeout: c.idle, ReadTimeout: c.read}
		if got := (Options{IdleLimit: c.option}).idleLimit(c.stop, srv); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
