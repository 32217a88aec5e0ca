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

// pipes is a listener of in-memory connections, for tests in which time is not the real one.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial opens a connection and, if request is not empty, makes a request on it and reads the response away.
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

// TestLimit: a connection is given until it has been quiet for the limit, and a request all the time that it needs.
func TestLimit(t *testing.T) {
	const limit = 5 * time.Second
	for _, c := range []struct {
		name  string
		setup func(p *pipes)
		want  time.Duration // from the beginning of the drain
	}{
		{"nothing open", func(p *pipes) {}, 0},
		{"idle for a moment", func(p *pipes) { p.dial("/") }, limit},
		{"idle for part of the limit", func(p *pipes) { p.dial("/"); time.Sleep(2 * time.Second) }, limit - 2*time.Second},
		{"idle for long", func(p *pipes) { p.dial("/"); time.Sleep(limit) }, 0},
		{"never said anything", func(p *pipes) { p.dial(""); time.Sleep(time.Second) }, limit - time.Second},
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
		{"request under way, then idle", func(p *pipes) { p.dial("/20s"); time.Sleep(time.Second) }, 19*time.Second + limit},
		{"request during the drain", func(p *pipes) {
			nc := p.dial("/")
			time.AfterFunc(4*time.Second, func() { nc.Write([]byte("GET /20s HTTP/1.1\r\nHost: x\r\n\r\n")) })
		}, 24 * time.Second},
		{"the client goes away", func(p *pipes) {
			nc := p.dial("/")
			time.AfterFunc(time.Second, func() { nc.Close() })
		}, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() {
					done <- serve(ctx, limit, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/20s" {
							time.Sleep(20 * time.Second)
						}
					})})
				}()
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
