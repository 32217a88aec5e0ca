//go:build unix

package preforkhttp

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// pauses is a worker's side of pausing, without a worker.
type pauses struct {
	ctx     context.Context
	heeded  chan bool // Resumed was called: new requests are held back
	reached chan bool // Checkpoint was called, while there was a pause

	mu               sync.Mutex
	paused           bool
	pausing, resumed chan struct{}
}

func (p *pauses) set(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused = paused; paused {
		select {
		case <-p.heeded: // of the pause before
		default:
		}
		p.resumed = make(chan struct{})
		close(p.pausing)
	} else {
		p.pausing = make(chan struct{})
		close(p.resumed)
	}
}

func (p *pauses) Pausing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pausing
}

func (p *pauses) Resumed() <-chan struct{} {
	select {
	case p.heeded <- true:
	default:
	}
	return p.over()
}

func (p *pauses) over() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resumed
}

func (p *pauses) Checkpoint() bool {
	select {
	case <-p.over():
	default:
		p.reached <- true
		select {
		case <-p.over():
		case <-p.ctx.Done():
		}
	}
	return p.ctx.Err() == nil
}

// hasPaused waits until the server has.
func (p *pauses) hasPaused(t *testing.T) {
	t.Helper()
	select {
	case <-p.reached:
	case <-time.After(long):
		t.Fatal("it has not paused")
	}
}

// startPausing is start with pauses.
func startPausing(t *testing.T, ln net.Listener, srv *http.Server) (*server, *pauses) {
	t.Helper()
	srv.ErrorLog = log.New(io.Discard, "", 0)
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{t, ln.Addr(), cancel, nil, make(chan error, 1)}
	p := &pauses{ctx: ctx, heeded: make(chan bool, 1), reached: make(chan bool, 1000), pausing: make(chan struct{}), resumed: make(chan struct{})}
	close(p.resumed)
	go func() { s.done <- serveBy(ctx, p, 50*time.Millisecond, ln, srv, srv.Serve) }()
	t.Cleanup(func() { cancel(); srv.Close() })
	return s, p
}

// silent fails the test if an answer comes.
func (c *client) silent() {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.br.Peek(1); err == nil {
		c.t.Error("an answer came during the pause")
	}
	c.nc.SetDeadline(time.Now().Add(long))
}

// undeadlined is a listener that cannot be woken, as that of another package may be.
type undeadlined struct{ net.Listener }

// In a pause what is under way is finished, and what comes is answered after it: on an open connection, and on a new one.
func TestPauseLosesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "undeadlined"} {
		t.Run(network, func(t *testing.T) {
			var ln net.Listener
			if network == "undeadlined" {
				ln = undeadlined{bind(t, "tcp").listener(t)}
			} else {
				ln = bind(t, network).listener(t)
			}
			entered, leave := make(chan bool), make(chan bool)
			s, p := startPausing(t, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					entered <- true
					<-leave
				}
				body, err := io.ReadAll(r.Body)
				fmt.Fprint(rw, len(body), err)
			})})
			for range 3 {
				slow, open := s.dial(), s.dial()
				open.send("GET /")
				open.receive()
				slow.send("GET /slow")
				<-entered
				p.set(true)
				<-p.heeded
				open.send("POST /", "Content-Length: 5")
				io.WriteString(open.nc, "12345")
				fresh := s.dial()
				fresh.send("GET /")
				open.silent()
				fresh.silent()
				select {
				case <-p.reached:
					t.Error("paused with a request under way")
				default:
				}
				leave <- true
				slow.receive()
				p.hasPaused(t)
				open.silent()
				fresh.silent()
				p.set(false)
				if resp, body := open.receive(); resp.StatusCode != http.StatusOK || body != "5 <nil>" {
					t.Errorf("a request that has waited: %s, %q", resp.Status, body)
				}
				if resp, _ := fresh.receive(); resp.StatusCode != http.StatusOK {
					t.Errorf("a connection that has waited: %s", resp.Status)
				}
			}
			s.cancel()
			s.drained()
		})
	}
}

// A pause that ends before the last request does is over at once, and the next one counts.
func TestPauseThatEndsEarly(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- true
			<-leave
		}
	})})
	slow := s.dial()
	slow.send("GET /slow")
	<-entered
	p.set(true)
	<-p.heeded
	fresh := s.dial()
	fresh.send("GET /")
	fresh.silent()
	p.set(false)
	fresh.receive()
	leave <- true
	slow.receive()
	p.set(true)
	p.hasPaused(t)
	p.set(false)
	s.cancel()
	s.drained()
}

// Pauses that are over before they were noticed do no harm.
func TestShortPauses(t *testing.T) {
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: hello})
	for range 200 {
		p.set(true)
		p.set(false)
		c := s.dial()
		c.send("GET /", "Connection: close")
		c.receive()
		c.nc.Close()
		for len(p.reached) > 0 {
			<-p.reached
		}
	}
	s.cancel()
	s.drained()
}

// Told to stop during a pause, it answers what has waited, in the queue too, and ends.
func TestStopInAPause(t *testing.T) {
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: hello})
	open := s.dial()
	open.send("GET /")
	open.receive()
	p.set(true)
	p.hasPaused(t)
	open.send("GET /")
	fresh := s.dial()
	fresh.send("GET /")
	fresh.silent()
	s.cancel()
	for _, c := range []*client{open, fresh} {
		if resp, _ := c.receive(); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("status %s, close %t", resp.Status, resp.Close)
		}
		c.nc.Close()
	}
	s.drained()
}

// A client that goes away while its request waits frees what that holds, during the pause; its request is not begun. One that
// only ends its side of the connection, which looks the same, is told.
func TestGoneInAPause(t *testing.T) {
	closed, begun := make(chan bool, 1), make(chan bool, 1)
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed <- true
			}
		},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				begun <- true
			}
		}),
	})
	for _, half := range []bool{false, true} {
		c := s.dial()
		c.send("GET /")
		c.receive()
		p.set(true)
		p.hasPaused(t)
		c.send("GET /waits")
		c.silent()
		if half {
			c.nc.(*net.TCPConn).CloseWrite()
			if resp, _ := c.receive(); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
				t.Errorf("status %s, close %t", resp.Status, resp.Close)
			}
		} else {
			c.nc.Close()
		}
		select {
		case <-closed:
		case <-time.After(long):
			t.Error("the connection is still held")
		}
		p.set(false)
	}
	s.cancel()
	s.drained()
	if len(begun) > 0 {
		t.Error("a request was begun that nobody waits for")
	}
}

// Over HTTP/2 it is the request alone that goes away, and not the connection of all others.
func TestGoneInAPauseOverHTTP2(t *testing.T) {
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			srv := f.server()
			srv.Handler = proto
			s, p := startPausing(t, f.listener(bind(t, "tcp").listener(t)), srv)
			tr, dialed := transport(t, f.client)
			url := f.scheme + "://" + s.addr.String()
			get(t, tr, url, "HTTP/2.0")
			p.set(true)
			p.hasPaused(t)
			ctx, gone := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer gone()
			req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := tr.RoundTrip(req); err == nil {
				resp.Body.Close()
				t.Error("an answer came during the pause")
			}
			p.set(false)
			for range 20 {
				get(t, tr, url, "HTTP/2.0")
			}
			if n := dialed(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			s.cancel()
			s.drained()
		})
	}
}

// A program that ends the contexts of its requests when it stops has those that have waited answered all the same.
func TestStopInAPauseEndsContexts(t *testing.T) {
	base, end := context.WithCancel(context.Background())
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: hello, BaseContext: func(net.Listener) context.Context { return base }})
	open := s.dial()
	open.send("GET /")
	open.receive()
	p.set(true)
	p.hasPaused(t)
	open.send("GET /")
	open.silent()
	end()
	open.silent()
	s.cancel()
	if resp, _ := open.receive(); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("status %s, close %t", resp.Status, resp.Close)
	}
	open.nc.Close()
	s.drained()
}

// The timeouts of a request that has waited count from the end of the pause.
func TestTimeoutsAfterAPause(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{ReadTimeout: timeout, WriteTimeout: timeout, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(rw, len(body), err)
	})})
	c := s.dial()
	c.send("GET /")
	c.receive()
	p.set(true)
	p.hasPaused(t)
	c.send("POST /", "Content-Length: 5")
	time.Sleep(timeout + 50*time.Millisecond)
	p.set(false)
	io.WriteString(c.nc, "12345")
	if resp, body := c.receive(); resp.StatusCode != http.StatusOK || body != "5 <nil>" {
		t.Errorf("%s, %q", resp.Status, body)
	}
	s.cancel()
	s.drained()
}

// So they do over HTTP/2, where each request has timers of its own.
func TestTimeoutsAfterAPauseOverHTTP2(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			srv := f.server()
			srv.Handler, srv.ReadTimeout, srv.WriteTimeout = proto, timeout, timeout
			s, p := startPausing(t, f.listener(bind(t, "tcp").listener(t)), srv)
			tr, _ := transport(t, f.client)
			url := f.scheme + "://" + s.addr.String()
			get(t, tr, url, "HTTP/2.0")
			p.set(true)
			p.hasPaused(t)
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				get(t, tr, url, "HTTP/2.0")
			}()
			time.Sleep(timeout + 100*time.Millisecond)
			p.set(false)
			<-answered
			s.cancel()
			s.drained()
		})
	}
}

// A request without a body that has waited is not taken for one whose client has gone, though it takes longer than it may be read.
func TestContextAfterAPause(t *testing.T) {
	const timeout = 200 * time.Millisecond
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{ReadTimeout: timeout, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(timeout + 100*time.Millisecond)
		fmt.Fprint(rw, r.Context().Err())
	})})
	c := s.dial()
	c.send("GET /")
	c.receive()
	p.set(true)
	p.hasPaused(t)
	c.send("GET /")
	c.silent()
	p.set(false)
	for range 2 {
		if _, body := c.receive(); body != "<nil>" {
			t.Errorf("its context has ended: %s", body)
		}
		c.send("GET /")
	}
	c.receive()
	s.cancel()
	s.drained()
}

// A program that ends serving by itself does not wait for the end of a pause, and neither do requests that have come meanwhile.
func TestShutdownInAPause(t *testing.T) {
	for name, end := range map[string]func(*http.Server) error{
		"Shutdown": func(srv *http.Server) error { return srv.Shutdown(context.Background()) },
		"Close":    func(srv *http.Server) error { return srv.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			srv := &http.Server{Handler: hello}
			s, p := startPausing(t, bind(t, "tcp").listener(t), srv)
			c := s.dial()
			c.send("GET /")
			c.receive()
			p.set(true)
			defer p.set(false)
			p.hasPaused(t)
			c.send("GET /")
			c.silent()
			if err := end(srv); err != nil {
				t.Error(err)
			}
			s.drained()
			if name == "Shutdown" {
				c.receive()
			}
		})
	}
}

// A hijacked connection is the program's, and does not keep the worker from pausing, whether its handler returns or not.
func TestPauseWithHijacked(t *testing.T) {
	leave := make(chan bool)
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		nc, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		if r.URL.Path == "/stays" {
			<-leave
		}
		nc.Close()
	})})
	for _, path := range []string{"/stays", "/goes"} {
		c := s.dial()
		c.send("GET " + path)
		if line, err := c.br.ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
	}
	for range 2 {
		p.set(true)
		p.hasPaused(t)
		p.set(false)
		c := s.dial()
		c.send("GET /")
		c.receive()
	}
	close(leave)
	s.cancel()
	s.drained()
}
