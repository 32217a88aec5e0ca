//go:build unix

package preforkhttp

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// noDeadlines is a listener without deadlines, as of another package.
type noDeadlines struct{ net.Listener }

// Requests in flight are finished in a pause. Requests that arrive in it, on an
// open connection or a new one, are answered after it.
func TestPauseLosesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "noDeadlines"} {
		t.Run(network, func(t *testing.T) {
			var ln net.Listener
			if network == "noDeadlines" {
				ln = noDeadlines{bind(t, "tcp").listener(t)}
			} else {
				ln = bind(t, network).listener(t)
			}
			entered, leave := make(chan bool), make(chan bool)
			handler := func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					entered <- true
					<-leave
				}
				body, err := io.ReadAll(r.Body)
				fmt.Fprint(rw, len(body), err)
			}
			s, p := startPausing(t, ln, &http.Server{Handler: http.HandlerFunc(handler)})
			for range 3 {
				slow, open := s.dial(), s.dial()
				open.send("GET /")
				open.receive()
				slow.send("GET /slow")
				<-entered
				p.set(true)
				<-p.shut
				open.send("POST /", "Content-Length: 5")
				io.WriteString(open.nc, "12345")
				fresh := s.dial()
				fresh.send("GET /")
				open.noResponse()
				fresh.noResponse()
				select {
				case <-p.checkpoint:
					t.Error("paused with a request in flight")
				default:
				}
				leave <- true
				slow.receive()
				p.awaitPaused(t)
				open.noResponse()
				fresh.noResponse()
				p.set(false)
				if resp, body := open.receive(); resp.StatusCode != http.StatusOK || body != "5 <nil>" {
					t.Errorf("request that has waited: %s, %q", resp.Status, body)
				}
				if resp, _ := fresh.receive(); resp.StatusCode != http.StatusOK {
					t.Errorf("connection that has waited: %s", resp.Status)
				}
			}
			s.cancel()
			s.drained()
		})
	}
}

// A pause that ends before the last request in flight ends at once, and does not
// affect the next one.
func TestPauseThatEndsEarly(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	handler := func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- true
			<-leave
		}
	}
	srv := &http.Server{Handler: http.HandlerFunc(handler)}
	s, p := startPausing(t, bind(t, "tcp").listener(t), srv)
	slow := s.dial()
	slow.send("GET /slow")
	<-entered
	p.set(true)
	<-p.shut
	fresh := s.dial()
	fresh.send("GET /")
	fresh.noResponse()
	p.set(false)
	fresh.receive()
	leave <- true
	slow.receive()
	p.set(true)
	p.awaitPaused(t)
	p.set(false)
	s.cancel()
	s.drained()
}

// Pauses that end before the server notices them have no effect.
func TestShortPauses(t *testing.T) {
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: hello})
	for range 200 {
		p.set(true)
		p.set(false)
		c := s.dial()
		c.send("GET /", "Connection: close")
		c.receive()
		c.nc.Close()
		for len(p.checkpoint) > 0 {
			<-p.checkpoint
		}
	}
	s.cancel()
	s.drained()
}

// A worker that stops during a pause answers the waiting requests, including
// those in the accept queue.
func TestStopInAPause(t *testing.T) {
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{Handler: hello})
	open := s.dial()
	open.send("GET /")
	open.receive()
	p.set(true)
	p.awaitPaused(t)
	open.send("GET /")
	fresh := s.dial()
	fresh.send("GET /")
	fresh.noResponse()
	s.cancel()
	for _, c := range []*client{open, fresh} {
		if resp, _ := c.receive(); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("status %s, close %t", resp.Status, resp.Close)
		}
		c.nc.Close()
	}
	s.drained()
}

// If a client disconnects while its request waits, the connection is closed
// during the pause and the request is not begun. A client that closes only its
// side of the connection receives a response.
func TestDisconnectInAPause(t *testing.T) {
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
		p.awaitPaused(t)
		c.send("GET /waits")
		c.noResponse()
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
			t.Error("the connection is still open")
		}
		p.set(false)
	}
	s.cancel()
	s.drained()
	if len(begun) > 0 {
		t.Error("a request was begun after its client had disconnected")
	}
}

// Over HTTP/2 the client cancels only the request, not the connection.
func TestCancelInAPauseOverHTTP2(t *testing.T) {
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			srv := f.server()
			srv.Handler = proto
			s, p := startPausing(t, f.listener(bind(t, "tcp").listener(t)), srv)
			tr, dialed := transport(t, f.client)
			url := f.scheme + "://" + s.addr.String()
			get(t, tr, url, "HTTP/2.0")
			p.set(true)
			p.awaitPaused(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := tr.RoundTrip(req); err == nil {
				resp.Body.Close()
				t.Error("response during the pause")
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

// If a program cancels the contexts of its requests when it stops, the waiting
// requests are still answered.
func TestStopInAPauseEndsContexts(t *testing.T) {
	base, end := context.WithCancel(context.Background())
	srv := &http.Server{Handler: hello}
	srv.BaseContext = func(net.Listener) context.Context { return base }
	s, p := startPausing(t, bind(t, "tcp").listener(t), srv)
	open := s.dial()
	open.send("GET /")
	open.receive()
	p.set(true)
	p.awaitPaused(t)
	open.send("GET /")
	open.noResponse()
	end()
	open.noResponse()
	s.cancel()
	if resp, _ := open.receive(); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("status %s, close %t", resp.Status, resp.Close)
	}
	open.nc.Close()
	s.drained()
}

// The timeouts of a request that has waited begin at the end of the pause.
func TestTimeoutsAfterAPause(t *testing.T) {
	const timeout = 300 * time.Millisecond
	handler := func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(rw, len(body), err)
	}
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{
		ReadTimeout: timeout, WriteTimeout: timeout, Handler: http.HandlerFunc(handler),
	})
	c := s.dial()
	c.send("GET /")
	c.receive()
	p.set(true)
	p.awaitPaused(t)
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

// So they do over HTTP/2, which has timers for each request.
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
			p.awaitPaused(t)
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

// A request without a body that has waited is not cancelled, although it takes
// longer than ReadTimeout.
func TestContextAfterAPause(t *testing.T) {
	const timeout = 200 * time.Millisecond
	handler := func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(timeout + 100*time.Millisecond)
		fmt.Fprint(rw, r.Context().Err())
	}
	s, p := startPausing(t, bind(t, "tcp").listener(t), &http.Server{
		ReadTimeout: timeout, Handler: http.HandlerFunc(handler),
	})
	c := s.dial()
	c.send("GET /")
	c.receive()
	p.set(true)
	p.awaitPaused(t)
	c.send("GET /")
	c.noResponse()
	p.set(false)
	for range 2 {
		if _, body := c.receive(); body != "<nil>" {
			t.Errorf("error of the context: %s", body)
		}
		c.send("GET /")
	}
	c.receive()
	s.cancel()
	s.drained()
}

// If the program ends serving, neither it nor a waiting request waits for the end
// of a pause.
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
			p.awaitPaused(t)
			c.send("GET /")
			c.noResponse()
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

// A hijacked connection does not keep the worker from pausing, even if its
// handler does not return.
func TestPauseWithHijacked(t *testing.T) {
	leave := make(chan bool)
	handler := func(rw http.ResponseWriter, r *http.Request) {
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
	}
	srv := &http.Server{Handler: http.HandlerFunc(handler)}
	s, p := startPausing(t, bind(t, "tcp").listener(t), srv)
	for _, path := range []string{"/stays", "/goes"} {
		c := s.dial()
		c.send("GET " + path)
		if line, err := c.br.ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
	}
	for range 2 {
		p.set(true)
		p.awaitPaused(t)
		p.set(false)
		c := s.dial()
		c.send("GET /")
		c.receive()
	}
	close(leave)
	s.cancel()
	s.drained()
}

// If the drain begins during a pause, the responses to requests that have waited
// close their connections, even if the hook of the context runs later.
func TestPausesEndDraining(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := hook(new(http.Server))
	d.barrier.close()
	p := &fakePauser{pausing: make(chan struct{})}
	d.runPauses(ctx, make(chan struct{}), p, newQueueListener(bind(t, "tcp").listener(t)))
	if !d.draining.Load() {
		t.Error("not draining")
	}
	if d.barrier.shut.Load() != nil {
		t.Error("the barrier is shut")
	}
}
