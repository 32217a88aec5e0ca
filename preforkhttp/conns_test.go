//go:build unix

package preforkhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A connection is spared if a request has begun to arrive on it: in the socket, or
// read by net/http. What follows is read too.
func TestCloseIdleSparesArrivingRequest(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for name, tracked := range map[string]bool{"tracked": true, "not tracked": false} {
			for _, alreadyRead := range []bool{false, true} {
				if alreadyRead && !tracked {
					continue // cannot be seen
				}
				ln := bind(t, network).listener(t)
				client, err := net.Dial(network, ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				nc, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if tracked {
					nc = track(nc)
				}
				c := newConns()
				c.setState(nc, http.StateNew)
				buf := make([]byte, 100)
				io.WriteString(client, "POST ")
				time.Sleep(10 * time.Millisecond) // loopback delivers at once
				if alreadyRead {
					nc.Read(buf)
					io.WriteString(client, "/")
				}
				c.closeIdle(false)
				nc.SetReadDeadline(time.Now().Add(long))
				for _, want := range []string{"POST ", "body"} {
					if alreadyRead && want == "POST " {
						want = "/"
					}
					if n, err := nc.Read(buf); err != nil || string(buf[:n]) != want {
						t.Errorf("%s %s: read %q, %v; want %q", network, name, buf[:n], err, want)
					}
					if want != "body" {
						io.WriteString(client, "body")
					}
				}
				if closed, _ := c.idleClosed(); !closed {
					t.Errorf("%s %s: not idleClosed with all connections spared", network, name)
				}
				c.setState(nc, http.StateClosed)
				if closed, _ := c.closed(); !closed {
					t.Errorf("%s %s: not closed after the last connection", network, name)
				}
				nc.Close()
				client.Close()
				ln.Close()
			}
		}
	}
}

// Without a request the goroutine that reads closes the connection. A deadline that
// it sets afterwards changes nothing.
func TestCloseIdleEndsRead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, reading := range []bool{false, true} {
			ln := bind(t, network).listener(t)
			client, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			nc, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			nc = track(nc)
			c := newConns()
			c.connContext(t.Context(), nc)
			c.setState(nc, http.StateNew)
			if reading {
				time.AfterFunc(20*time.Millisecond, func() { c.closeIdle(false) })
			} else {
				c.closeIdle(false)
				nc.SetReadDeadline(time.Now().Add(long))
			}
			if n, err := nc.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("%s: read %d bytes, %v; want EOF", network, n, err)
			}
			client.SetDeadline(time.Now().Add(long))
			if _, err := client.Read(make([]byte, 10)); err != io.EOF {
				t.Errorf("%s: the client read %v, want EOF", network, err)
			}
			client.Close()
			ln.Close()
		}
	}
}

// A request in flight is not interrupted.
func TestCloseIdleSparesActive(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := newConns()
	c.setState(here, http.StateNew)
	c.setState(here, http.StateActive)
	c.closeIdle(false)
	if idleClosed, _ := c.idleClosed(); !idleClosed {
		t.Error("closed with a request in flight")
	}
	if err := here.SetDeadline(time.Now()); err != nil {
		t.Errorf("closed with a request in flight: %v", err)
	}
	c.setState(here, http.StateIdle)
	c.closeIdle(false)
	if _, err := here.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("idle connection is open: %v", err)
	}
}

// closer is a connection that only reports that it is closed for reading.
type closer struct {
	net.Conn
	closed func(*closer)
}

func (c *closer) CloseRead() error {
	c.closed(c)
	return nil
}

// If a request begins while idle connections are closed, the drain waits for it
// and closes its connection later.
func TestDrainSparesNewRequest(t *testing.T) {
	d := hook(new(http.Server))
	var one, two *closer
	readClosed := make(chan *closer, 2)
	first := true
	closed := func(c *closer) {
		if other := one; first {
			if c == one {
				other = two
			}
			d.conns.setState(other, http.StateActive)
		}
		first = false
		readClosed <- c
	}
	one, two = &closer{closed: closed}, &closer{closed: closed}
	d.conns.setState(one, http.StateNew)
	d.conns.setState(two, http.StateNew)
	done := make(chan error, 1)
	d.limit.Store(int64(time.Millisecond))
	go func() { done <- d.drain() }()
	idle := <-readClosed
	spared := one
	if idle == one {
		spared = two
	}
	d.conns.setState(idle, http.StateClosed)
	select {
	case <-done:
		t.Fatal("the drain ended with a request in flight")
	case c := <-readClosed:
		t.Fatalf("closed with a request in flight: %v", c == spared)
	case <-time.After(50 * time.Millisecond):
	}
	d.conns.setState(spared, http.StateIdle)
	if c := <-readClosed; c != spared {
		t.Error("closed twice")
	}
	d.conns.setState(spared, http.StateClosed)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// If HTTP/2 without TLS is enabled, a connection with an HTTP/1 request is closed
// like any other, and not left to Shutdown.
func TestCloseIdleWithPlainHTTP2(t *testing.T) {
	d := hook(&http.Server{Handler: hello, Protocols: protocols(func(p *http.Protocols) {
		p.SetHTTP1(true)
		p.SetUnencryptedHTTP2(true)
	})})
	for major, want := range map[int]bool{1: true, 2: false} {
		closed := false
		nc := &closer{closed: func(*closer) { closed = true }}
		r := httptest.NewRequest("GET", "/", nil).WithContext(d.conns.connContext(t.Context(), nc))
		r.ProtoMajor = major
		d.conns.setState(nc, http.StateNew)
		d.conns.setState(nc, http.StateActive)
		d.ServeHTTP(httptest.NewRecorder(), r)
		d.conns.setState(nc, http.StateIdle)
		d.conns.closeIdle(d.plainHTTP2)
		if closed != want {
			t.Errorf("HTTP/%d: closed %v, want %v", major, closed, want)
		}
		d.conns.setState(nc, http.StateClosed)
	}
}

// The hook adds a lock and the time to the cost of a request.
func TestHookDoesNotAllocate(t *testing.T) {
	c, nc := newConns(), net.Conn(new(net.TCPConn))
	c.setState(nc, http.StateNew)
	if n := testing.AllocsPerRun(100, func() {
		c.setState(nc, http.StateActive)
		c.setState(nc, http.StateIdle)
	}); n > 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// BenchmarkRequest measures the cost that Serve adds to a request, with 10,000
// open connections: two states of the connection, and ServeHTTP of the drainer.
// It runs on all processors at once.
func BenchmarkRequest(b *testing.B) {
	d := hook(&http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	open := func() (net.Conn, *http.Request) {
		nc := net.Conn(new(net.TCPConn))
		ctx := d.srv.ConnContext(context.Background(), nc)
		d.srv.ConnState(nc, http.StateNew)
		return nc, httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	}
	for range 10_000 {
		open()
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		nc, r := open()
		for pb.Next() {
			ctx, cancel := context.WithCancel(r.Context()) // as net/http does
			d.srv.ConnState(nc, http.StateActive)
			d.ServeHTTP(nil, r.WithContext(ctx))
			d.srv.ConnState(nc, http.StateIdle)
			cancel()
		}
	})
}
