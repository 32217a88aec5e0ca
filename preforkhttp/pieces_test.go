//go:build unix

package preforkhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pieceBody is the body of a request that arrives in two pieces.
const pieceBody = "a body that arrives later than its header"

// bodies is a handler that counts the bodies that it reads, and those that are
// cut.
type bodies struct{ whole, cut atomic.Int32 }

func (b *bodies) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got, err := io.ReadAll(r.Body)
	if err != nil || r.Method == "POST" && string(got) != pieceBody {
		b.cut.Add(1)
		return
	}
	if r.Method == "POST" {
		b.whole.Add(1)
	}
	fmt.Fprint(w, "hello")
}

// serveTLS is serveNoPause over TLS.
func serveTLS(ctx context.Context, limit time.Duration, ln net.Listener, srv *http.Server) error {
	return serveWithLimits(ctx, nil, limits{idle: limit}, nil, ln, srv, func(ln net.Listener) error {
		return srv.ServeTLS(ln, "", "")
	})
}

// wrapTLS is serveNoPause on a listener of another package, whose connections
// have no tracking.
func wrapTLS(ctx context.Context, limit time.Duration, ln net.Listener, srv *http.Server) error {
	return serveNoPause(ctx, limit, tls.NewListener(ln, srv.TLSConfig), srv)
}

// Many clients send the header of a POST in the moment when the idle limit is
// reached, and the body 5 ms later. None is cut: each is answered, or never
// begun, since its connection was closed before. On a listener that another
// package wraps, a request may instead be refused. It took 158 of 400 handlers'
// bodies before.
func TestPostInPiecesAtIdleLimit(t *testing.T) {
	const clients = 100
	wanted := 4000
	if !*longRun {
		wanted = 400
	}
	for _, c := range []struct {
		name, network string
		serve         serveFunc
		secure        bool
		refusals      bool
	}{
		{"tcp", "tcp", serveNoPause, false, false},
		{"unix", "unix", serveNoPause, false, false},
		{"TLS", "tcp", serveTLS, true, false},
		{"wrapped TLS", "tcp", wrapTLS, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := tlsConfig(t)
			var handler bodies
			var answered, refused, closed, broken atomic.Int32
			for round := 0; int(answered.Load()) < wanted && round < wanted/10; round++ {
				ln := bind(t, c.network).listener(t)
				srv := &http.Server{Handler: &handler, ErrorLog: log.New(io.Discard, "", 0)}
				if c.secure {
					srv.TLSConfig = config.Clone()
				}
				const limit = 50 * time.Millisecond
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.serve(ctx, limit, ln, srv) }()
				var ready, all sync.WaitGroup
				begin := make(chan time.Time)
				for range clients {
					ready.Add(1)
					all.Go(func() {
						nc, err := net.Dial(c.network, ln.Addr().String())
						if err != nil {
							t.Error(err)
							return
						}
						if c.secure {
							nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
						}
						defer nc.Close()
						nc.SetDeadline(time.Now().Add(long))
						cl := &client{t, nc, bufio.NewReader(nc)}
						cl.send("GET /")
						cl.receive()
						ready.Done()
						idle := <-begin
						time.Sleep(time.Until(idle.Add(limit + rand.N(2*time.Millisecond) - time.Millisecond)))
						_, err = fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(pieceBody))
						time.Sleep(5 * time.Millisecond)
						io.WriteString(nc, pieceBody)
						resp, err2 := http.ReadResponse(cl.br, nil)
						switch {
						case err != nil || err2 != nil:
							closed.Add(1)
						case resp.StatusCode == http.StatusServiceUnavailable:
							refused.Add(1)
						case resp.StatusCode != http.StatusOK:
							broken.Add(1)
						default:
							answered.Add(1)
						}
					})
				}
				ready.Wait()
				cancel()
				idle := time.Now()
				for range clients {
					begin <- idle
				}
				all.Wait()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			t.Logf("answered %d, cut %d, refused %d, closed before they began %d",
				answered.Load(), handler.cut.Load(), refused.Load(), closed.Load())
			if handler.cut.Load() > 0 || broken.Load() > 0 || handler.whole.Load() != answered.Load() {
				t.Errorf("handlers saw %d cut and %d whole bodies; %d answers, %d of another status",
					handler.cut.Load(), handler.whole.Load(), answered.Load(), broken.Load())
			}
			if refused.Load() > 0 && !c.refusals {
				t.Errorf("%d refused", refused.Load())
			}
		})
	}
}

// Clients send POSTs in two pieces through reloads. None fails.
func TestPostInPiecesInReload(t *testing.T) {
	posts, reloads := int64(4000), 20
	if !*longRun {
		posts, reloads = 400, 5
	}
	for _, network := range []string{"tcp", "unix"} {
		var handler bodies
		s := bind(t, network)
		start := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- serveNoPause(ctx, 5*time.Second, s.listener(t), &http.Server{Handler: &handler})
			}()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		stop := start()
		var sent atomic.Int64
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for sent.Load() < posts {
					nc, err := net.Dial(network, s.ln.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					nc.SetDeadline(time.Now().Add(long))
					br := bufio.NewReader(nc)
					for closing := false; !closing && sent.Load() < posts; {
						fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: x\r\n")
						time.Sleep(rand.N(2 * time.Millisecond))
						fmt.Fprintf(nc, "Content-Length: %d\r\n\r\n", len(pieceBody))
						time.Sleep(rand.N(5 * time.Millisecond))
						io.WriteString(nc, pieceBody)
						resp, err := http.ReadResponse(br, nil)
						if err != nil || resp.StatusCode != http.StatusOK {
							t.Errorf("%v, %v", resp, err)
							break
						}
						io.Copy(io.Discard, resp.Body)
						closing = resp.Close
						sent.Add(1)
					}
					nc.Close()
				}
			})
		}
		for n := range reloads {
			for sent.Load() < posts*int64(n)/int64(reloads) {
				time.Sleep(time.Millisecond)
			}
			next := start()
			stop()
			stop = next
		}
		all.Wait()
		stop()
		if handler.cut.Load() > 0 || int64(handler.whole.Load()) != sent.Load() {
			t.Errorf("%s: %d whole and %d cut bodies, want %d and 0", network, handler.whole.Load(), handler.cut.Load(), sent.Load())
		}
	}
}

// A header that trickles in longer than the limit is not cut, whether it began
// before the drain or in it. One that stops for the limit is.
func TestTricklingHeader(t *testing.T) {
	const limit = 200 * time.Millisecond
	for name, early := range map[string]bool{"before the drain": true, "in the drain": false} {
		s := start(t, nil, limit, &http.Server{Handler: hello})
		c := s.dial()
		c.get(false)
		stalled := s.dial()
		stalled.get(false)
		if !early {
			s.cancel()
		}
		const header = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		for i := range len(header) {
			io.WriteString(c.nc, header[i:i+1])
			if i == 3 {
				io.WriteString(stalled.nc, "GET /")
				s.cancel()
			}
			time.Sleep(limit / 8)
		}
		if resp, body := c.receive(); !resp.Close || body != "hello" {
			t.Errorf("%s: close %v, body %q", name, resp.Close, body)
		}
		s.drained()
		if resp, err := http.ReadResponse(stalled.br, nil); err == nil && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: the stalled header was answered by %d", name, resp.StatusCode)
		}
	}
}

// The program's hooks and handlers get the connection's own type, or one with all
// its methods.
func TestTypesOfConnections(t *testing.T) {
	var states, contexts, readers atomic.Int32
	srv := &http.Server{
		ConnState: func(nc net.Conn, _ http.ConnState) {
			if _, ok := nc.(*net.TCPConn); ok {
				states.Add(1)
			}
		},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			if _, ok := nc.(*net.TCPConn); ok {
				contexts.Add(1)
			}
			return ctx
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nc, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			if c, ok := nc.(interface {
				io.ReaderFrom
				SetNoDelay(bool) error
				CloseWrite() error
				File() (*os.File, error)
			}); ok && c.SetNoDelay(true) == nil {
				readers.Add(1)
			}
		}),
	}
	s := start(t, nil, 0, srv)
	c := s.dial()
	c.send("GET /")
	c.ended()
	s.cancel()
	s.drained()
	if contexts.Load() != 1 || states.Load() != 3 || readers.Load() != 1 {
		t.Errorf("ConnContext %d, ConnState %d, hijacked %d; want 1, 3, 1", contexts.Load(), states.Load(), readers.Load())
	}
}
