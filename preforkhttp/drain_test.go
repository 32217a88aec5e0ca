//go:build unix

package preforkhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Responses on open connections have "Connection: close" after the drain begins.
func TestOpenConnectionsCloseInDrain(t *testing.T) {
	s := start(t, nil, 0, &http.Server{Handler: hello})
	used, unused := s.dial(), s.dial()
	used.get(false)
	probe := s.dial() // accepted after unused, so its response shows that unused is accepted
	probe.get(false)
	s.cancel()
	<-s.closed
	s.running()
	probe.get(true)
	unused.get(true)
	s.running() // used is open
	used.get(true)
	used.ended()
	s.drained()
}

// A worker that stops does not reset connections that it has not accepted.
func TestQueuedConnectionsGoToOthers(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		sock := bind(t, network)
		old := start(t, sock.listener(t), 0, &http.Server{Handler: hello})
		old.cancel()
		old.drained()
		queued := old.dial()
		queued.send("GET /")
		next := start(t, sock.listener(t), 0, &http.Server{Handler: hello})
		if resp, _ := queued.receive(); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
		queued.nc.Close()
		next.cancel()
		next.drained()
	}
}

// gate is a listener whose Accept waits until the drain begins.
type gate struct {
	*net.TCPListener
	open chan bool
	once sync.Once
}

func (g *gate) Accept() (net.Conn, error) {
	<-g.open
	return g.TCPListener.Accept()
}

func (g *gate) SetDeadline(t time.Time) error {
	g.once.Do(func() { close(g.open) })
	return g.TCPListener.SetDeadline(t)
}

// When the program exits there are no other workers, and connections in the
// queue would be reset.
func TestQueuedConnectionsAreServed(t *testing.T) {
	g := &gate{TCPListener: bind(t, "tcp").listener(t).(*net.TCPListener), open: make(chan bool)}
	s := start(t, g, time.Minute, &http.Server{Handler: hello})
	var queued []*client
	for range 5 {
		c := s.dial()
		c.send("GET /")
		queued = append(queued, c)
	}
	s.cancel()
	for i, c := range queued {
		if resp, body := c.receive(); !resp.Close || body != "hello" {
			t.Errorf("queued connection %d: close %v, body %q", i, resp.Close, body)
		}
	}
	s.drained()
}

// A request in flight is not interrupted, and the next response on its connection
// closes it.
func TestRequestInFlight(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- true
			<-finish
		}
		fmt.Fprint(w, "hello")
	}
	s := start(t, nil, time.Millisecond, &http.Server{Handler: http.HandlerFunc(handler)})
	c := s.dial()
	c.send("GET /slow")
	<-begun
	s.cancel()
	s.running() // for many times the limit
	c.send("GET /")
	close(finish)
	c.receive()
	if resp, body := c.receive(); !resp.Close || body != "hello" {
		t.Errorf("close %v, body %q", resp.Close, body)
	}
	s.drained()
}

func TestContextEndedBeforeServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ln := bind(t, "tcp").listener(t)
	if err := serveNoPause(ctx, time.Hour, ln, &http.Server{}); err != nil {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want a closed listener", err)
	}
}

func init() {
	http.HandleFunc("/preforkhttp", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "default mux")
	})
}

func TestHandlersOfTheServer(t *testing.T) {
	var states [http.StateClosed + 1]atomic.Int32
	s := start(t, nil, 0, &http.Server{ConnState: func(nc net.Conn, state http.ConnState) {
		states[state].Add(1)
	}})
	c := s.dial()
	c.send("GET /preforkhttp")
	if _, body := c.receive(); body != "default mux" {
		t.Errorf("body %q", body)
	}
	c.send("OPTIONS *") // answered by net/http itself, without the header
	if resp, _ := c.receive(); resp.StatusCode != http.StatusOK || resp.ContentLength != 0 {
		t.Errorf("OPTIONS *: status %d, length %d", resp.StatusCode, resp.ContentLength)
	}
	s.cancel()
	<-s.closed
	c.send("GET /preforkhttp")
	if resp, _ := c.receive(); !resp.Close {
		t.Error("no Connection: close in the drain")
	}
	s.drained()
	count := func(state http.ConnState) int32 { return states[state].Load() }
	opened, closed := count(http.StateNew), count(http.StateClosed)
	active, idle := count(http.StateActive), count(http.StateIdle)
	if opened != closed || active < 3 || idle < 2 {
		t.Errorf("the program's ConnState: new %d, active %d, idle %d, closed %d",
			opened, active, idle, closed)
	}
}

// The drain does not wait for hijacked connections.
func TestDrainIgnoresHijacked(t *testing.T) {
	hijacked := make(chan net.Conn, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		hijacked <- nc
	}
	s := start(t, nil, 0, &http.Server{Handler: http.HandlerFunc(handler)})
	c := s.dial()
	c.send("GET /")
	nc := <-hijacked
	s.cancel()
	s.drained()
	fmt.Fprint(nc, "still here")
	nc.Close()
	if b, _ := io.ReadAll(c.br); string(b) != "still here" {
		t.Errorf("read %q", b)
	}
}

// The header is set before the Handler, which may change it, and not for an
// Upgrade.
func TestHeaderInDrain(t *testing.T) {
	var seen string
	d := hook(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = w.Header().Get("Connection")
	})})
	for _, c := range []struct {
		draining bool
		upgrade  string
		want     string
	}{{false, "", ""}, {true, "", "close"}, {true, "websocket", ""}} {
		d.draining.Store(c.draining)
		r := httptest.NewRequest("GET", "/", nil)
		if c.upgrade != "" {
			r.Header.Set("Upgrade", c.upgrade)
		}
		d.ServeHTTP(httptest.NewRecorder(), r)
		if seen != c.want {
			t.Errorf("draining %v, upgrade %q: Connection %q, want %q", c.draining, c.upgrade, seen, c.want)
		}
	}
}

func TestPanicInHandler(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	handler := func(http.ResponseWriter, *http.Request) {
		begun <- true
		<-finish
		panic("in the handler")
	}
	s := start(t, nil, 0, &http.Server{Handler: http.HandlerFunc(handler)})
	c := s.dial()
	c.send("GET /")
	<-begun
	s.cancel()
	close(finish)
	c.ended()
	s.drained()
}

// If the program calls Shutdown, serve returns after the requests that Shutdown
// waits for.
func TestShutdownByProgram(t *testing.T) {
	for name, end := range map[string]func(*http.Server){
		"Shutdown": func(srv *http.Server) { go srv.Shutdown(context.Background()) },
		"Close":    func(srv *http.Server) { srv.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			begun, finish := make(chan bool), make(chan bool)
			srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				begun <- true
				<-finish
			})}
			s := start(t, nil, 0, srv)
			c := s.dial()
			c.send("GET /")
			<-begun
			end(srv)
			s.running()
			close(finish)
			s.drained()
			if name == "Shutdown" {
				c.receive()
			}
			c.ended()
		})
	}
}

// scripted is a listener whose first calls of Accept fail with errs.
type scripted struct {
	net.Listener
	errs []error
}

func (l *scripted) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	broken := errors.New("broken")
	s := start(t, &scripted{bind(t, "tcp").listener(t), []error{broken}}, 0, &http.Server{})
	if err := s.wait(); !errors.Is(err, broken) {
		t.Errorf("serve: %v, want %v", err, broken)
	}
	ln := &scripted{bind(t, "tcp").listener(t), []error{syscall.EMFILE, syscall.EMFILE}}
	s = start(t, ln, 0, &http.Server{Handler: hello})
	s.dial().get(false)
	s.cancel()
}

func TestServerUsedTwice(t *testing.T) {
	srv := &http.Server{}
	s := start(t, nil, 0, srv)
	s.cancel()
	s.drained()
	err := serveNoPause(t.Context(), 0, bind(t, "tcp").listener(t), srv)
	if !errors.Is(err, errServerReused) {
		t.Errorf("second serve: %v", err)
	}
}

// serve returns when the last connection closes, without waiting for a timer.
func TestReturnsPromptly(t *testing.T) {
	var slowest time.Duration
	for range 20 {
		s := start(t, nil, 0, &http.Server{Handler: hello})
		c := s.dial()
		c.get(false)
		s.cancel()
		s.running()
		begin := time.Now()
		c.nc.Close()
		s.drained()
		slowest = max(slowest, time.Since(begin))
	}
	t.Log("slowest return:", slowest)
	if slowest > time.Second {
		t.Errorf("serve returned %v after the last connection", slowest)
	}
}

// Shutdown loses a request that net/http has read but not yet reported as
// active. The program's hook holds a request at that point until the limit has
// passed.
func TestRequestReadAndNotBegun(t *testing.T) {
	var hold atomic.Bool
	held, proceed := make(chan bool), make(chan bool)
	s := start(t, nil, time.Millisecond, &http.Server{
		ConnState: func(nc net.Conn, state http.ConnState) {
			if state == http.StateActive && hold.Load() {
				held <- true
				<-proceed
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hold.Load() {
				select {
				case <-r.Context().Done():
					t.Error("the request was cancelled")
				case <-time.After(20 * time.Millisecond):
				}
			}
			fmt.Fprint(w, "hello")
		}),
	})
	c := s.dial()
	c.get(false)
	hold.Store(true)
	c.send("GET /")
	<-held
	s.cancel()
	s.running()
	close(proceed)
	if resp, body := c.receive(); !resp.Close || body != "hello" {
		t.Errorf("close %v, body %q", resp.Close, body)
	}
	s.drained()
}

// A TLS connection whose client sends nothing does not delay the drain.
func TestClientWithoutHandshake(t *testing.T) {
	ln := tls.NewListener(bind(t, "tcp").listener(t), tlsConfig(t))
	accepted := make(chan bool, 1)
	connState := func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted <- true
		}
	}
	s := start(t, ln, time.Millisecond, &http.Server{ConnState: connState})
	c := s.dial()
	<-accepted
	s.cancel()
	s.drained()
	c.ended()
}

// A client has pipelined more requests than net/http reads at once, and reads
// slowly. It receives the last response as a whole, although unread requests are
// in the socket when net/http closes it.
func TestLastResponseBeforePipelined(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "TLS"} {
		for _, request := range []string{"GET /", "GET /upgrade", "OPTIONS *"} {
			t.Run(network+" "+request, func(t *testing.T) { lastResponse(t, network, request) })
		}
	}
}

func lastResponse(t *testing.T, network, request string) {
	const size = 300_000
	begun, finish := make(chan bool), make(chan bool)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			begun <- true
			<-finish
		}
		w.Write(make([]byte, size))
	})}
	serve, bound := serveFunc(serveNoPause), network
	if network == "TLS" {
		serve, bound, srv.TLSConfig = serveTLS, "tcp", tlsConfig(t)
	}
	s := startBy(t, serve, bind(t, bound).listener(t), 0, srv)
	c := s.dial()
	if tc, ok := c.nc.(*net.TCPConn); ok {
		tc.SetReadBuffer(32 << 10) // so that most of a response waits in the server's kernel
	}
	if network == "TLS" {
		c.nc = tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true})
		c.br = bufio.NewReader(c.nc)
	}
	c.send("GET /first")
	if request == "GET /upgrade" {
		c.send(request, "Connection: Upgrade", "Upgrade: h2c")
	} else {
		c.send(request)
	}
	io.WriteString(c.nc, strings.Repeat("GET /unread HTTP/1.1\r\nHost: x\r\n\r\n", 500))
	<-begun
	s.cancel()
	<-s.closed
	finish <- true
	for _, last := range []bool{false, true} {
		want := size
		if last && request == "OPTIONS *" {
			want = 0
		}
		if resp, body := c.receive(); len(body) != want || resp.Close != last {
			t.Fatalf("%d bytes, close %v; want %d, %v", len(body), resp.Close, want, last)
		}
	}
	if rest, err := io.ReadAll(c.br); err != nil || len(rest) > 0 {
		t.Errorf("after the last response: %d bytes, %v", len(rest), err)
	}
	c.nc.Close()
	s.drained()
}

// A client that sends requests behind the last response, and never closes its
// connection, does not hold up the drain.
func TestClientThatLingers(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	s := start(t, nil, 0, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- true
		<-finish
	})})
	c := s.dial()
	c.send("GET /")
	<-begun
	s.cancel()
	<-s.closed
	finish <- true
	c.receive()
	c.send("GET /")
	io.WriteString(c.nc, strings.Repeat("GET /unread HTTP/1.1\r\nHost: x\r\n\r\n", 500))
	<-begun
	finish <- true
	s.drained()
}
