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
)

// long is a wait that only a failing test sees the end of.
const long = 30 * time.Second

// server is a serve under way.
type server struct {
	t      *testing.T
	addr   net.Addr
	cancel context.CancelFunc // the drain begins
	closed chan struct{}      // its listener is closed: every request that comes from now on is told to close
	done   chan error
}

// closeTeller tells of its Close.
type closeTeller struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *closeTeller) Close() error {
	defer l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// deadlineTeller is one with what the last call needs.
type deadlineTeller struct {
	*closeTeller
	deadliner
}

// start serves on ln, or, if that is nil, on a TCP socket of its own, with a limit that is never reached unless it is set.
func start(t *testing.T, ln net.Listener, limit time.Duration, srv *http.Server) *server {
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
	teller := &closeTeller{Listener: ln, closed: s.closed}
	ln = teller
	if d, ok := teller.Listener.(deadliner); ok {
		ln = deadlineTeller{teller, d}
	}
	go func() { s.done <- serve(ctx, limit, ln, srv) }()
	t.Cleanup(func() { cancel(); srv.Close() })
	return s
}

// wait returns what serve returned.
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

// client is one connection.
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

// send sends a request with the given first line and further header lines.
func (c *client) send(line string, header ...string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.nc, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", line, strings.Join(append(header, ""), "\r\n")); err != nil {
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

// get makes a request and checks whether the response announces the end of the connection.
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
		c.t.Errorf("the connection has not ended: %v", err)
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
