//go:build unix

package preforkhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

// TestExpireLeavesWhatHasCome: a request that lies in the socket is still read, and the end after it.
func TestExpireLeavesWhatHasCome(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system may drop it")
	}
	for _, network := range []string{"tcp", "unix"} {
		ln := bind(t, network).listener(t)
		defer ln.Close()
		client, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := newConns()
		c.setState(nc, http.StateNew)
		io.WriteString(client, "request")
		time.Sleep(10 * time.Millisecond) // loopback delivers at once
		c.expire(false)
		nc.SetReadDeadline(time.Now().Add(long))
		if got, err := io.ReadAll(nc); err != nil || string(got) != "request" {
			t.Errorf("%s: read %q, %v", network, got, err)
		}
		if c.settled() {
			t.Errorf("%s: settled before the connection is closed", network)
		}
		c.setState(nc, http.StateClosed)
		if !c.settled() || !c.none() {
			t.Errorf("%s: not settled after it", network)
		}
	}
}

// TestExpireSparesActive: a request under way is not cut.
func TestExpireSparesActive(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := newConns()
	c.setState(here, http.StateNew)
	c.setState(here, http.StateActive)
	c.expire(false)
	if err := here.SetDeadline(time.Now()); err != nil || !c.settled() {
		t.Errorf("expired: %v", err)
	}
	c.setState(here, http.StateIdle)
	c.expire(false)
	if _, err := here.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("not expired when idle: %v", err)
	}
}

// closer is a connection that only tells of its end for reading.
type closer struct {
	net.Conn
	closed func(*closer)
}

func (c *closer) CloseRead() error {
	c.closed(c)
	return nil
}

// TestDrainSparesWhatBegins: a request that begins while connections are expired is waited for, and its connection is expired after.
func TestDrainSparesWhatBegins(t *testing.T) {
	d := hook(new(http.Server))
	var one, two *closer
	expired := make(chan *closer, 2)
	first := true
	closed := func(c *closer) {
		if other := one; first {
			if c == one {
				other = two
			}
			d.conns.setState(other, http.StateActive)
		}
		first = false
		expired <- c
	}
	one, two = &closer{closed: closed}, &closer{closed: closed}
	d.conns.setState(one, http.StateNew)
	d.conns.setState(two, http.StateNew)
	done := make(chan error, 1)
	go func() { done <- d.drain(time.Millisecond) }()
	idle := <-expired
	spared := one
	if idle == one {
		spared = two
	}
	d.conns.setState(idle, http.StateClosed)
	select {
	case <-done:
		t.Fatal("the drain is over while there is a request")
	case c := <-expired:
		t.Fatalf("expired with a request: %v", c == spared)
	case <-time.After(50 * time.Millisecond):
	}
	d.conns.setState(spared, http.StateIdle)
	if c := <-expired; c != spared {
		t.Error("expired twice")
	}
	d.conns.setState(spared, http.StateClosed)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestExpireWhereHTTP2MayBePlain: a connection without TLS that was seen to be HTTP/1 is expired as any other, and not left to Shutdown.
func TestExpireWhereHTTP2MayBePlain(t *testing.T) {
	d := hook(&http.Server{Handler: hello, Protocols: protocols(func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) })})
	for major, want := range map[int]bool{1: true, 2: false} {
		expired := false
		nc := &closer{closed: func(*closer) { expired = true }}
		r := httptest.NewRequest("GET", "/", nil).WithContext(d.conns.connContext(t.Context(), nc))
		r.ProtoMajor = major
		d.conns.setState(nc, http.StateNew)
		d.conns.setState(nc, http.StateActive)
		d.ServeHTTP(httptest.NewRecorder(), r)
		d.conns.setState(nc, http.StateIdle)
		d.conns.expire(d.plain2)
		if expired != want {
			t.Errorf("HTTP/%d: expired %v, want %v", major, expired, want)
		}
		d.conns.setState(nc, http.StateClosed)
	}
}

// TestHookAllocatesNothing: what a request adds to the cost of net/http is a lock and the time.
func TestHookAllocatesNothing(t *testing.T) {
	c, nc := newConns(), net.Conn(new(net.TCPConn))
	c.setState(nc, http.StateNew)
	if n := testing.AllocsPerRun(100, func() {
		c.setState(nc, http.StateActive)
		c.setState(nc, http.StateIdle)
	}); n > 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

// BenchmarkRequest is what Serve adds to a request, with 10,000 connections open: two states of the connection, and the way
// through the drainer; on all processors at once.
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
