//go:build unix

package loadgen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// config returns a load on a new server. The caller sets a number of requests
// as the end.
func newServer(t *testing.T, h http.HandlerFunc) Config {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr()
	return Config{Network: addr.Network(), Address: addr.String(), MaxTime: 10 * time.Second}
}

// runUntil runs the load until enough returns true, and checks that Stop ends
// it.
func runUntil(t *testing.T, cfg Config, enough func(Result) bool) Result {
	t.Helper()
	l := Start(cfg)
	for !enough(l.Result()) {
		if l.ctx.Err() != nil {
			t.Fatalf("too few requests in %v: %v", cfg.MaxTime, l.Stop())
		}
		time.Sleep(time.Millisecond)
	}
	res := l.Stop()
	if again := l.Stop(); again.String() != res.String() {
		t.Errorf("after Stop: %v, then %v", res, again)
	}
	return res
}

func TestOK(t *testing.T) {
	for _, body := range []string{"", "body"} {
		cfg := newServer(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		cfg.KeepAlive, cfg.Fresh, cfg.Body = 3, 2, body
		cfg.Check = func(status int, got []byte) error {
			if status != http.StatusOK || string(got) != body {
				return fmt.Errorf("%d %q", status, got)
			}
			return nil
		}
		res := runUntil(t, cfg, func(r Result) bool { return r.OK > 100 && r.Dialed > 20 })
		if res.Failed != 0 || res.IdleClosed != 0 || res.Closing != 0 {
			t.Errorf("%v: %v", res, res.Errors)
		}
	}
}

// TestKeepAlive checks that a client keeps its connection until a response
// closes it.
func TestKeepAlive(t *testing.T) {
	cfg := newServer(t, func(w http.ResponseWriter, r *http.Request) {})
	cfg.KeepAlive = 3
	if res := runUntil(t, cfg, func(r Result) bool { return r.OK > 100 && r.Dialed >= 3 }); res.Dialed != 3 {
		t.Errorf("%v, want 3 dialed", res)
	}
	cfg = newServer(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
	cfg.KeepAlive = 3
	if res := runUntil(t, cfg, func(r Result) bool { return r.OK > 100 }); res.Failed != 0 || res.Closing != res.OK || res.Dialed != res.OK {
		t.Errorf("%v, want as many dialed and closing as ok", res)
	}
}

func TestFailed(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage Stage
		h     http.HandlerFunc
	}{
		{"status", Check, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"no response", ReadHeader, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }},
		{"half a response", ReadBody, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.Write([]byte("half"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newServer(t, c.h)
			cfg.KeepAlive, cfg.Fresh = 2, 2
			res := runUntil(t, cfg, func(r Result) bool { return r.Failed > maxErrors })
			if res.OK != 0 || res.IdleClosed != 0 || len(res.Errors) != maxErrors {
				t.Errorf("%v, %d errors", res, len(res.Errors))
			}
			for _, err := range res.Errors {
				checkError(t, err, c.stage)
			}
		})
	}
}

// checkError checks the Error of a request that failed as the first on its
// connection.
func checkError(t *testing.T, err error, want Stage) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Stage != want || e.Carried != 0 || (e.Local == nil) != (want == Dial) || e.Err == nil || e.At.IsZero() {
		t.Errorf("%v, want failure at %q", err, want)
	}
}

// TestCarried checks that an Error has the number of requests on its
// connection.
func TestCarried(t *testing.T) {
	cfg := newRawServer(t, func(nc net.Conn, r *bufio.Reader) {
		for range 3 {
			respond(nc, r)
		}
		r.Peek(1)
	})
	res := runUntil(t, cfg, func(r Result) bool { return r.Failed >= 3 })
	for _, err := range res.Errors {
		var e *Error
		if !errors.As(err, &e) || e.Stage != ReadHeader || e.Carried != 3 {
			t.Errorf("%v, want failure at %q after 3", err, ReadHeader)
		}
	}
}

func TestRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	res := runUntil(t, Config{Network: "tcp", Address: addr, KeepAlive: 1, MaxTime: 10 * time.Second}, func(r Result) bool { return r.Failed > 0 })
	if res.OK != 0 || res.Dialed != 0 {
		t.Error(res)
	}
	checkError(t, res.Errors[0], Dial)
}

// newRawServer returns a load on a new server that calls serve for each
// connection.
func newRawServer(t *testing.T, serve func(nc net.Conn, r *bufio.Reader)) Config {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			go func() { defer nc.Close(); serve(nc, bufio.NewReader(nc)) }()
		}
	}()
	return Config{Network: "tcp", Address: ln.Addr().String(), KeepAlive: 1, MaxTime: 10 * time.Second}
}

// respond answers one request without announcing a close.
func respond(nc net.Conn, r *bufio.Reader) {
	if _, err := http.ReadRequest(r); err == nil {
		io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// TestIdleClosed checks that a close between two requests loses none if it
// arrives before the client writes.
func TestIdleClosed(t *testing.T) {
	cfg := newRawServer(t, respond)
	// The pause must be much longer than the close takes.
	cfg.Pause = func() time.Duration { return 100 * time.Millisecond }
	res := runUntil(t, cfg, func(r Result) bool { return r.IdleClosed >= 3 })
	if res.Failed != 0 || res.OK < 3 {
		t.Errorf("%v: %v", res, res.Errors)
	}
}

// TestClosedOnRequest checks that a close after the client has written is a
// failure, and so is a close of an unused connection.
func TestClosedOnRequest(t *testing.T) {
	cfg := newRawServer(t, func(nc net.Conn, r *bufio.Reader) {
		respond(nc, r)
		r.Peek(1)
	})
	res := runUntil(t, cfg, func(r Result) bool { return r.Failed >= 3 })
	if res.IdleClosed != 0 {
		t.Errorf("close on a request: %v: %v", res, res.Errors)
	}
	res = runUntil(t, newRawServer(t, func(net.Conn, *bufio.Reader) {}), func(r Result) bool { return r.Failed >= 3 })
	if res.IdleClosed != 0 || res.OK != 0 {
		t.Errorf("close before a request: %v: %v", res, res.Errors)
	}
}

// TestTimeout checks that a request without a response fails after Timeout.
func TestTimeout(t *testing.T) {
	cfg := newRawServer(t, func(nc net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	cfg.Timeout = 20 * time.Millisecond
	runUntil(t, cfg, func(r Result) bool { return r.Failed >= 2 })
}

// TestMaxTime checks that a load ends by itself.
func TestMaxTime(t *testing.T) {
	cfg := newServer(t, func(w http.ResponseWriter, r *http.Request) {})
	cfg.KeepAlive, cfg.MaxTime = 2, 20*time.Millisecond
	l := Start(cfg)
	l.wg.Wait()
	if l.Stop().OK == 0 {
		t.Error("no request succeeded")
	}
}
