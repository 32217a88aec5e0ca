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

// config is a load on a server with the given handler; counted in requests, so it is short.
func config(t *testing.T, h http.HandlerFunc) Config {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr()
	return Config{Network: addr.Network(), Address: addr.String(), MaxTime: 10 * time.Second}
}

// until runs the load until enough has been counted, and checks that Stop ends it.
func until(t *testing.T, cfg Config, enough func(Result) bool) Result {
	t.Helper()
	l := Start(cfg)
	for !enough(l.Result()) {
		if l.ctx.Err() != nil {
			t.Fatalf("not enough in %v: %v", cfg.MaxTime, l.Stop())
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
		cfg := config(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		cfg.KeepAlive, cfg.Fresh, cfg.Body = 3, 2, body
		cfg.Check = func(status int, got []byte) error {
			if status != http.StatusOK || string(got) != body {
				return fmt.Errorf("%d %q", status, got)
			}
			return nil
		}
		res := until(t, cfg, func(r Result) bool { return r.OK > 100 && r.Dialed > 20 })
		if res.Failed != 0 || res.IdleClosed != 0 || res.Closing != 0 {
			t.Errorf("%v: %v", res, res.Errors)
		}
	}
}

// TestKeepAlive: a client has one connection, until a response says that it is the last.
func TestKeepAlive(t *testing.T) {
	cfg := config(t, func(w http.ResponseWriter, r *http.Request) {})
	cfg.KeepAlive = 3
	if res := until(t, cfg, func(r Result) bool { return r.OK > 100 }); res.Dialed != 3 {
		t.Errorf("%v, want 3 dialed", res)
	}
	cfg = config(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
	cfg.KeepAlive = 3
	if res := until(t, cfg, func(r Result) bool { return r.OK > 100 }); res.Failed != 0 || res.Closing != res.OK || res.Dialed != res.OK {
		t.Errorf("%v, want one dialed and one closing for each", res)
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
			cfg := config(t, c.h)
			cfg.KeepAlive, cfg.Fresh = 2, 2
			res := until(t, cfg, func(r Result) bool { return r.Failed > maxErrors })
			if res.OK != 0 || res.IdleClosed != 0 || len(res.Errors) != maxErrors {
				t.Errorf("%v, %d errors", res, len(res.Errors))
			}
			for _, err := range res.Errors {
				stages(t, err, c.stage)
			}
		})
	}
}

// stages checks what an error says of a request that failed as the first on its connection.
func stages(t *testing.T, err error, want Stage) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Stage != want || e.Carried != 0 || (e.Local == nil) != (want == Dial) || e.Err == nil || e.At.IsZero() {
		t.Errorf("%v, want failure at %q", err, want)
	}
}

// An error says how many requests its connection had carried.
func TestCarried(t *testing.T) {
	cfg := raw(t, func(nc net.Conn, r *bufio.Reader) {
		for range 3 {
			respond(nc, r)
		}
		r.Peek(1)
	})
	res := until(t, cfg, func(r Result) bool { return r.Failed >= 3 })
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
	res := until(t, Config{Network: "tcp", Address: addr, KeepAlive: 1, MaxTime: 10 * time.Second}, func(r Result) bool { return r.Failed > 0 })
	if res.OK != 0 || res.Dialed != 0 {
		t.Error(res)
	}
	stages(t, res.Errors[0], Dial)
}

// raw is a server of which each connection is served by serve.
func raw(t *testing.T, serve func(nc net.Conn, r *bufio.Reader)) Config {
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

// respond answers one request without a word of closing.
func respond(nc net.Conn, r *bufio.Reader) {
	if _, err := http.ReadRequest(r); err == nil {
		io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// TestIdleClosed: a close between two requests costs none if it is there before the client writes.
func TestIdleClosed(t *testing.T) {
	cfg := raw(t, respond)
	cfg.Pause = func() time.Duration { return 100 * time.Millisecond } // far longer than the close takes
	res := until(t, cfg, func(r Result) bool { return r.IdleClosed >= 3 })
	if res.Failed != 0 || res.OK < 3 {
		t.Errorf("%v: %v", res, res.Errors)
	}
}

// TestClosedOnRequest: a close after the client has written is a failure, and so is one of a connection never used.
func TestClosedOnRequest(t *testing.T) {
	cfg := raw(t, func(nc net.Conn, r *bufio.Reader) {
		respond(nc, r)
		r.Peek(1)
	})
	res := until(t, cfg, func(r Result) bool { return r.Failed >= 3 })
	if res.IdleClosed != 0 {
		t.Errorf("close on a request: %v: %v", res, res.Errors)
	}
	res = until(t, raw(t, func(net.Conn, *bufio.Reader) {}), func(r Result) bool { return r.Failed >= 3 })
	if res.IdleClosed != 0 || res.OK != 0 {
		t.Errorf("close before any: %v: %v", res, res.Errors)
	}
}

// TestTimeout: a request that is not answered is a failure, in a time of its own.
func TestTimeout(t *testing.T) {
	cfg := raw(t, func(nc net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	cfg.Timeout = 20 * time.Millisecond
	until(t, cfg, func(r Result) bool { return r.Failed >= 2 })
}

// TestMaxTime: a load that nobody stops ends.
func TestMaxTime(t *testing.T) {
	cfg := config(t, func(w http.ResponseWriter, r *http.Request) {})
	cfg.KeepAlive, cfg.MaxTime = 2, 20*time.Millisecond
	l := Start(cfg)
	l.wg.Wait()
	if l.Stop().OK == 0 {
		t.Error("no request")
	}
}
