//go:build unix

package preforkhttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

// long is a timeout that only a failing test reaches.
const long = 30 * time.Second

// A server is a running call of serve.
type server struct {
	t      *testing.T
	addr   net.Addr
	cancel context.CancelFunc // begins the drain
	closed chan struct{}      // the listener is closed: every later response closes its connection
	done   chan error
}

// A closeReporter closes a channel when it is closed.
type closeReporter struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *closeReporter) Close() error {
	defer l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A deadlineReporter is a closeReporter with deadlines.
type deadlineReporter struct {
	*closeReporter
	deadlineListener
}

// serveNoPause is serveWithLimits without pauses.
func serveNoPause(ctx context.Context, limit time.Duration, ln net.Listener,
	srv *http.Server) error {
	return serveWithLimits(ctx, nil, limits{idle: limit}, nil, ln, srv, srv.Serve)
}

// start serves on ln. A nil ln means a new TCP socket. A zero limit means one
// that is never reached.
func start(t *testing.T, ln net.Listener, limit time.Duration, srv *http.Server) *server {
	t.Helper()
	return startBy(t, serveNoPause, ln, limit, srv)
}

// startBy is start with a serveFunc.
func startBy(t *testing.T, serve serveFunc, ln net.Listener, limit time.Duration, srv *http.Server) *server {
	t.Helper()
	if ln == nil {
		ln = bind(t, "tcp").listener(t)
	}
	if limit == 0 {
		limit = time.Hour
	}
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(io.Discard, "", 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{t, ln.Addr(), cancel, make(chan struct{}), make(chan error, 1)}
	reporter := &closeReporter{Listener: ln, closed: s.closed}
	ln = reporter
	if d, ok := reporter.Listener.(deadlineListener); ok {
		ln = deadlineReporter{reporter, d}
	}
	go func() { s.done <- serve(ctx, limit, ln, srv) }()
	t.Cleanup(func() { cancel(); srv.Close() })
	return s
}

// wait returns the result of serve.
func (s *server) wait() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(long):
		s.t.Fatal("serve has not returned")
		return nil
	}
}

// drained fails the test unless serve returns nil.
func (s *server) drained() {
	s.t.Helper()
	if err := s.wait(); err != nil {
		s.t.Errorf("serve: %v, want nil", err)
	}
}

// running fails the test if serve has returned.
func (s *server) running() {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.t.Fatalf("serve has returned: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
}

// A client is one connection.
type client struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
}

func (s *server) dial() *client {
	s.t.Helper()
	nc, err := net.Dial(s.addr.Network(), s.addr.String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(long))
	return &client{s.t, nc, bufio.NewReader(nc)}
}

// send sends a request with this first line and these header lines.
func (c *client) send(line string, header ...string) {
	c.t.Helper()
	lines := strings.Join(append(header, ""), "\r\n")
	if _, err := fmt.Fprintf(c.nc, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", line, lines); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next response and its body.
func (c *client) receive() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}

// get makes a request and checks whether the response closes the connection.
func (c *client) get(closing bool) string {
	c.t.Helper()
	c.send("GET /")
	resp, body := c.receive()
	if resp.StatusCode != http.StatusOK || resp.Close != closing {
		c.t.Errorf("status %d, close %v; want 200, %v", resp.StatusCode, resp.Close, closing)
	}
	return body
}

// ended waits for the end of the connection.
func (c *client) ended() {
	c.t.Helper()
	if _, err := c.br.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("the connection is still open: %v", err)
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "hello")
})

// Serve returns an error for a nil argument, such as the listener of a program that
// calls Listen only in the manager.
func TestNilArguments(t *testing.T) {
	w, srv, ln := new(prefork.Worker), &http.Server{}, bind(t, "tcp").listener(t)
	defer ln.Close()
	var tcp *net.TCPListener
	for _, c := range []struct {
		w    *prefork.Worker
		ln   net.Listener
		srv  *http.Server
		want error
	}{
		{nil, ln, srv, errNoWorker},
		{w, nil, srv, errNoListener},
		{w, tcp, srv, errNoListener},
		{w, ln, nil, errNoServer},
	} {
		if err := Serve(c.w, c.ln, c.srv); err != c.want {
			t.Errorf("Serve: %v, want %v", err, c.want)
		}
		if err := ServeTLS(c.w, c.ln, c.srv, "", ""); err != c.want {
			t.Errorf("ServeTLS: %v, want %v", err, c.want)
		}
	}
}
