//go:build unix

package control

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// Neither a stopped manager nor a client that is gone leaves anything behind.
func TestNoLeaks(t *testing.T) {
	preforktest.NoLeaks(t)
	s := newTestServer(t, Config{})
	ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	conn, _ := streamOf(t, s.sock.address, "/v1/events")
	conn.Close()
	connect(t, s.sock.address, "GET / HT") // never completed
	streamOf(t, s.sock.address, "/v1/events")
	if err := s.detachOnce(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.sock.address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A client that has connected and not yet sent its request is answered when the
// server ends: after a takeover it asks again, and the successor answers.
func TestDetachAnswersUnreadRequests(t *testing.T) {
	for _, successor := range []int64{0, 42} {
		s := newTestServer(t, Config{})
		conns := []net.Conn{connect(t, s.sock.address, ""), connect(t, s.sock.address, "GET / HT")}
		ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n") // so the others are accepted
		s.successor.Store(successor)
		want := "the manager ends"
		if successor != 0 {
			want = `"successor":42`
		}
		if err := s.detachOnce(); err != nil {
			t.Error(err)
		}
		for i, conn := range conns {
			if text := readAll(conn); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.Contains(text, want) {
				t.Errorf("connection %d: %q, want %s", i, text, want)
			}
		}
	}
}

// A manager that was superseded keeps no descriptor of the socket: if the
// successor ends before it does, clients learn that no manager listens.
func TestSupersededClosesSocket(t *testing.T) {
	s := newTestServer(t, Config{})
	stream, _ := streamOf(t, s.sock.address, "/v1/events")
	s.follower(s.pools[0])(prefork.Record{Seq: 1, Event: prefork.UpgradedEvent{PID: 99}})
	preforktest.WaitFor(t, "the end of the socket", func() bool {
		conn, err := net.Dial("unix", s.sock.address)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if err := s.detachOnce(); err != nil {
		t.Error(err)
	}
	if text := readAll(stream); !strings.Contains(text, `"successor":99`) {
		t.Errorf("the stream has ended without its end: %q", text)
	}
}

// The 65th connection is answered at once, and the place of one that ends is free.
func TestMaxConns(t *testing.T) {
	s := newTestServer(t, Config{})
	var streams []net.Conn
	for range maxConns {
		conn, lines := streamOf(t, s.sock.address, "/v1/events")
		if !lines.Scan() {
			t.Fatal("no state")
		}
		streams = append(streams, conn)
	}
	code, body := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	if code != 503 || !strings.Contains(body, "64 connections") {
		t.Errorf("connection 65: %d %s", code, body)
	}
	streams[0].Close()
	for code = 503; code == 503; {
		code, _ = ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	}
	if code != 200 {
		t.Errorf("after one has ended: %d", code)
	}
}

// However many connections are refused, the server goes on, and keeps none.
func TestMaxRefusals(t *testing.T) {
	s := newTestServer(t, Config{})
	var streams []net.Conn
	for range maxConns {
		conn, lines := streamOf(t, s.sock.address, "/v1/events")
		lines.Scan()
		streams = append(streams, conn)
	}
	for range 2 * maxRefusals {
		connect(t, s.sock.address, "") // sends nothing
	}
	if code, _ := ask(t, s.sock.address, "GET / HTTP/1.1\r\n\r\n"); code != 503 {
		t.Errorf("behind the others: %d", code)
	}
	for _, conn := range streams {
		conn.Close()
	}
	code := 503
	for code == 503 {
		code, _ = ask(t, s.sock.address, "GET / HTTP/1.1\r\n\r\n")
	}
	if code != 200 {
		t.Errorf("after all: %d", code)
	}
}

// A request must come within 5 seconds.
func TestSlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		began, done := time.Now(), make(chan bool)
		ours.SetReadDeadline(began.Add(ioTimeout))
		go func() {
			defer close(done)
			for _, err := io.WriteString(theirs, "GET / HTTP/1.1\r\nA: "); err == nil; _, err = theirs.Write([]byte("X")) {
				time.Sleep(time.Second)
			}
		}()
		if _, err := readRequest(ours, nil); err == nil || time.Since(began) != ioTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ours.Close()
		<-done
	})
}

// Each write has its own 5 seconds.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			var buf [1]byte
			for range 3 {
				time.Sleep(4 * time.Second)
				theirs.Read(buf[:])
			}
		}()
		w := timedWriter{ours}
		for range 3 {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := w.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != ioTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ours.Close()
	})
}

func socketPair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: testprog.SocketDir(t) + "/p"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr))
	if err == nil {
		server, err = ln.AcceptUnix()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
