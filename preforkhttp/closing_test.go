//go:build unix

package preforkhttp

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// answers are the ways in which a handler does not honor an upgrade.
var answers = map[string]http.HandlerFunc{
	"nothing":    func(http.ResponseWriter, *http.Request) {},
	"status":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
	"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	"body":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
	"string":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
	"copy": func(w http.ResponseWriter, _ *http.Request) {
		io.Copy(w, io.LimitReader(strings.NewReader("hello"), 5))
	},
	"flush":      func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
	"controller": func(w http.ResponseWriter, _ *http.Request) { http.NewResponseController(w).Flush() },
	"early hints": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "hello")
	},
	"error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad handshake", http.StatusBadRequest) },
	"upgrade required": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusUpgradeRequired)
	},
	"keep-alive": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "keep-alive")
		fmt.Fprint(w, "hello")
	},
}

// A client that offers an upgrade which is not honored moves to another worker
// like any other client.
func TestUpgradeNotHonoredClosesInDrain(t *testing.T) {
	for _, upgrade := range []string{"h2c", "TLS/1.2", "websocket"} {
		for name, handler := range answers {
			s := start(t, nil, 0, &http.Server{Handler: handler})
			c := s.dial()
			c.send("GET /", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAA", "Upgrade: "+upgrade)
			if resp, _ := c.final(); resp.Close {
				t.Errorf("%s, %s: closed before the drain", upgrade, name)
			}
			s.cancel()
			<-s.closed
			c.send("GET /", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAA", "Upgrade: "+upgrade)
			resp, _ := c.final()
			if !resp.Close {
				t.Errorf("%s, %s: no Connection: close, but %q", upgrade, name, resp.Header["Connection"])
				c.nc.Close()
			} else {
				c.ended()
			}
			s.drained()
		}
	}
}

// final returns the next response that is not informational.
func (c *client) final() (*http.Response, string) {
	c.t.Helper()
	for {
		resp, body := c.receive()
		if resp.StatusCode >= 200 {
			return resp, body
		}
	}
}

// An upgrade that is honored is not closed, whether the handler hijacks the
// connection or a proxy in it does.
func TestUpgradeHonoredInDrain(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		nc, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		line, _ := rw.ReadString('\n')
		io.WriteString(nc, line)
	})
	backend := httptest.NewServer(echo)
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.Handler{"handler": echo, "proxy": httputil.NewSingleHostReverseProxy(target)} {
		s := start(t, nil, 0, &http.Server{Handler: handler})
		c := s.dial()
		c2 := s.dial()
		c2.send("GET /other", "Connection: Upgrade", "Upgrade: echo")
		c2.receiveSwitch()
		s.cancel()
		<-s.closed

		c.send("GET /", "Connection: Upgrade", "Upgrade: echo")
		resp := c.receiveSwitch()
		if got := resp.Header.Values("Connection"); resp.StatusCode != http.StatusSwitchingProtocols || len(got) != 1 || got[0] != "Upgrade" {
			t.Errorf("%s: status %d, Connection %q", name, resp.StatusCode, got)
		}
		io.WriteString(c.nc, "ping\n")
		if line, _ := c.br.ReadString('\n'); line != "ping\n" {
			t.Errorf("%s: echo %q", name, line)
		}
		c2.nc.Close()
		c.nc.Close()
		s.drained()
	}
}

// receiveSwitch returns a response without its body.
func (c *client) receiveSwitch() *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// "OPTIONS *" closes its connection in a drain, and is otherwise answered as by
// net/http. A program that handles it itself still does.
func TestOptionsInDrain(t *testing.T) {
	for _, own := range []bool{false, true} {
		handled := 0
		s := start(t, nil, 0, &http.Server{
			DisableGeneralOptionsHandler: own,
			Handler:                      http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled++ }),
		})
		c := s.dial()
		for _, body := range []string{"", "some bytes"} {
			c.send("OPTIONS *", fmt.Sprintf("Content-Length: %d", len(body)))
			io.WriteString(c.nc, body)
			if resp, got := c.receive(); resp.StatusCode != http.StatusOK || got != "" || resp.Close {
				t.Errorf("status %d, body %q, close %v", resp.StatusCode, got, resp.Close)
			}
		}
		s.cancel()
		<-s.closed
		c.send("OPTIONS *")
		if resp, _ := c.receive(); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("own handler %v: status %d, close %v; want 200, true", own, resp.StatusCode, resp.Close)
			c.nc.Close()
		}
		s.drained()
		if want := map[bool]int{false: 0, true: 3}[own]; handled != want {
			t.Errorf("own handler %v: called %d times, want %d", own, handled, want)
		}
	}
}

// HTTP/1.0 clients with keep-alive are closed too.
func TestHTTP10KeepAliveClosesInDrain(t *testing.T) {
	s := start(t, nil, 0, &http.Server{Handler: hello})
	c := s.dial()
	get := func() *http.Response {
		io.WriteString(c.nc, "GET / HTTP/1.0\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n\r\n")
		resp, _ := c.receive()
		return resp
	}
	if resp := get(); resp.Header.Get("Connection") != "keep-alive" {
		t.Errorf("Connection %q before the drain", resp.Header.Get("Connection"))
	}
	s.cancel()
	<-s.closed
	if resp := get(); resp.Header.Get("Connection") == "keep-alive" {
		t.Error("kept alive in the drain")
		c.nc.Close()
	}
	s.drained()
}

// Requests that are pipelined behind the one whose response closes the connection
// are not begun.
func TestPipelinedInDrain(t *testing.T) {
	var handled atomic.Int32
	s := start(t, nil, 0, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) })})
	c := s.dial()
	c.get(false)
	s.cancel()
	<-s.closed
	io.WriteString(c.nc, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 3))
	if resp, _ := c.receive(); !resp.Close {
		t.Error("no Connection: close")
	}
	c.ended()
	s.drained()
	if handled.Load() != 2 {
		t.Errorf("%d requests handled, want 2", handled.Load())
	}
}
