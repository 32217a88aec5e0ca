//go:build unix

package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("answering", answering) }

// answering answers each request with its path and body, and /events with a
// stream that ends with the Context of the worker. Its arguments are the kind of
// the socket and its address.
func answering() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers:  3,
		Readiness:   prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.ExitEvent:
				testprog.Print("exit: %v, %v", ev.Exit.Reason, ev.Exit.Status)
			case prefork.RolledEvent:
				testprog.Print("rolled")
			}
		},
	})
	network, listen := os.Args[1], pm.Listen
	if network == "per worker" {
		network, listen = "tcp", pm.ListenPerWorker
	}
	ln, err := listen(network, os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("on %s %s", ln.Addr().Network(), ln.Addr())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.Context() // from here on the stop signal does not end the worker
		w.Ready()
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				sendEvents(w, rw)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				testprog.Print("cut: %s %s: %v", r.Method, r.URL, err)
			}
			fmt.Fprintf(rw, "%s %s", r.RequestURI, body)
		})})
	}); err != nil {
		log.Fatal(err)
	}
}

func sendEvents(w *prefork.Worker, rw http.ResponseWriter) {
	rw.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		fmt.Fprint(rw, "data: event\n\n")
		rw.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-w.Context().Done():
			fmt.Fprint(rw, lastEvent)
			return
		}
	}
}

const lastEvent = "data: the end\n\n"

// A strictClient has one connection at a time. Only
// pipelined sends a request again. A connection that ends without "Connection:
// close" is an error.
type strictClient struct {
	network, address string
	nc               net.Conn // nil: the next request opens one
	br               *bufio.Reader
	sent             int

	requests, resent *atomic.Int64 // of all clients of the kind
}

// connect opens a connection if there is none.
func (c *strictClient) connect() error {
	if c.nc != nil {
		return nil
	}
	nc, err := net.Dial(c.network, c.address)
	if err != nil {
		return err
	}
	nc.SetDeadline(time.Now().Add(5 * time.Minute))
	c.nc, c.br = nc, bufio.NewReader(nc)
	return nil
}

func (c *strictClient) close() {
	if c.nc != nil {
		c.nc.Close()
		c.nc = nil
	}
}

// path returns another path for each request.
func (c *strictClient) path() string {
	c.sent++
	return fmt.Sprintf("/%p/%d", c, c.sent)
}

// response reads a final response and compares its body. It reports whether the
// response closes the connection.
func (c *strictClient) response(want string) (closed bool, err error) {
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return false, fmt.Errorf("response to %q: %w", want, err)
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return false, fmt.Errorf("body of the response to %q: %w", want, err)
	case resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(body), want):
		return false, fmt.Errorf("status %d, body %q instead of %q", resp.StatusCode, body, want)
	}
	c.requests.Add(1)
	return resp.Close, nil
}

// exchange sends one request and reads its response.
func (c *strictClient) exchange(request, want string) error {
	if err := c.connect(); err != nil {
		return err
	}
	if _, err := io.WriteString(c.nc, request); err != nil {
		return err
	}
	return c.last(want)
}

// last reads the only response that is outstanding. If it closes the connection,
// nothing follows.
func (c *strictClient) last(want string) error {
	closed, err := c.response(want)
	if err != nil || !closed {
		return err
	}
	defer c.close()
	if n, _ := c.br.Peek(1); len(n) > 0 {
		return errors.New("data behind the last response")
	}
	return nil
}

func (c *strictClient) plain() error {
	path := c.path()
	return c.exchange("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n", path+" ")
}

func (c *strictClient) newConnection() error {
	path := c.path()
	return c.exchange("GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path+" ")
}

// java offers HTTP/2 with each request, as Java's HttpClient does.
func (c *strictClient) java() error {
	const offer = " HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\nHost: x\r\n" +
		"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n\r\n%s"
	path := c.path()
	if c.sent%2 == 0 {
		return c.exchange(fmt.Sprintf("GET "+path+offer, 0, ""), path+" ")
	}
	return c.exchange(fmt.Sprintf("POST "+path+offer, len(path), path), path+" "+path)
}

// unhonored makes requests whose upgrade the handler does not honor, and "OPTIONS *".
func (c *strictClient) unhonored() error {
	path := c.path()
	switch c.sent % 3 {
	case 0:
		return c.exchange("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "")
	case 1:
		return c.exchange("GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", path+" ")
	default:
		return c.exchange("GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path+" ")
	}
}

// http10 keeps connections with HTTP/1.0, as ab does.
func (c *strictClient) http10() error {
	path := c.path()
	return c.exchange("GET "+path+" HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", path+" ")
}

// pipelined sends up to 100 requests in one write, more than net/http reads at
// once. Those behind a response with "Connection: close" must have no answer, and
// are sent again on a new connection: HTTP/1.1 asks that of a client that
// pipelines (RFC 9112, 9.3.2).
func (c *strictClient) pipelined() error {
	var paths []string
	for range 2 + rand.IntN(99) {
		paths = append(paths, c.path())
	}
	for len(paths) > 0 {
		if err := c.connect(); err != nil {
			return err
		}
		var all strings.Builder
		for _, path := range paths {
			fmt.Fprintf(&all, "GET %s HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n", path, path)
		}
		if _, err := io.WriteString(c.nc, all.String()); err != nil {
			return err
		}
		closed := false
		for len(paths) > 0 && !closed {
			var err error
			if closed, err = c.response(paths[0] + " "); err != nil {
				return err
			}
			paths = paths[1:]
		}
		if closed {
			if n, _ := c.br.Peek(1); len(n) > 0 {
				return errors.New("data behind the last response")
			}
			c.close()
			c.resent.Add(int64(len(paths)))
		}
	}
	return nil
}

// chunked uploads a body in pieces. Every second request waits for "100
// Continue" before the body.
func (c *strictClient) chunked() error {
	if err := c.connect(); err != nil {
		return err
	}
	path := c.path()
	expect := ""
	if c.sent%2 == 0 {
		expect = "Expect: 100-continue\r\n"
	}
	fmt.Fprintf(c.nc, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n", path, expect)
	if expect != "" {
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil || resp.StatusCode != http.StatusContinue {
			return fmt.Errorf("%v, %v instead of 100 Continue", resp, err)
		}
	}
	for _, piece := range []string{"5\r\nfirst", "\r\n6\r", "\nsecond\r\n", "0\r\n\r\n"} {
		time.Sleep(rand.N(time.Millisecond))
		if _, err := io.WriteString(c.nc, piece); err != nil {
			return err
		}
	}
	return c.last(path + " firstsecond")
}

// events reads a stream up to its last event.
func (c *strictClient) events() error {
	return c.exchange("GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n", lastEvent)
}

// Rolling reloads under load cut no request of any kind of client, and every
// worker ends by itself. With -long each socket has 40 reloads and 200,000
// requests.
func TestClientsThroughReloads(t *testing.T) {
	reloads, requests := testprog.Times(40), int64(200_000)
	sockets := []string{"tcp", "per worker", "unix"}
	if !testprog.Long() {
		requests, sockets = 2_000, sockets[:1]
	}
	for _, socket := range sockets {
		t.Run(socket, func(t *testing.T) { clientsThroughReloads(t, socket, reloads, requests) })
	}
}

func clientsThroughReloads(t *testing.T, socket string, reloads int, requests int64) {
	address := "127.0.0.1:0"
	if socket == "unix" {
		address = filepath.Join(testprog.SocketDir(t), "s")
	}
	p := preforktest.Start(t, "answering", socket, address)
	on := p.Expect(`^on (\S+) (.*)$`)

	kinds := []struct {
		name             string
		clients          int
		request          func(*strictClient) error
		requests, resent atomic.Int64
	}{
		{name: "plain", clients: 2, request: (*strictClient).plain},
		{name: "new connection", clients: 2, request: (*strictClient).newConnection},
		{name: "Upgrade: h2c", clients: 8, request: (*strictClient).java},
		{name: "other upgrades", clients: 2, request: (*strictClient).unhonored},
		{name: "HTTP/1.0", clients: 4, request: (*strictClient).http10},
		{name: "pipelined", clients: 1, request: (*strictClient).pipelined},
		{name: "chunked", clients: 8, request: (*strictClient).chunked},
		{name: "events", clients: 8, request: (*strictClient).events},
	}
	var all sync.WaitGroup
	var stop atomic.Bool
	var failed atomic.Int64
	for i := range kinds {
		k := &kinds[i]
		for range k.clients {
			c := &strictClient{network: on[1], address: on[2], requests: &k.requests, resent: &k.resent}
			all.Go(func() {
				defer c.close()
				for !stop.Load() && failed.Load() < 20 {
					if err := k.request(c); err != nil {
						failed.Add(1)
						t.Errorf("%s: %v", k.name, err)
						c.close()
					}
				}
			})
		}
	}
	served := func() (all, least int64) {
		least = math.MaxInt64
		for i := range kinds {
			n := kinds[i].requests.Load()
			all += n
			if kinds[i].name != "events" {
				least = min(least, n)
			}
		}
		return all, least
	}
	began := time.Now()
	for n := range reloads {
		want := requests * int64(n+1) / int64(reloads)
		preforktest.WaitFor(t, "requests", func() bool {
			all, least := served()
			return all >= want && least >= want/20 || failed.Load() > 0
		})
		stop.Store(n == reloads-1) // the streams end in the last reload
		p.Signal(hup)
		p.Expect(`^rolled$`)
	}
	all.Wait()
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	p.WaitGone()

	for i := range kinds {
		k := &kinds[i]
		t.Logf("%-14s %6d requests, %d sent again", k.name, k.requests.Load(), k.resent.Load())
		if k.requests.Load() < int64(reloads) {
			t.Errorf("%s: %d requests in %d reloads", k.name, k.requests.Load(), reloads)
		}
	}
	total, _ := served()
	exits := map[string]int{}
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "exit: ") || strings.HasPrefix(line, "cut: ") {
			exits[line]++
		}
	}
	t.Logf("%d reloads in %v: %d requests, %d failed; %v", reloads, time.Since(began).Round(time.Millisecond), total, failed.Load(), exits)
	if want := 3 * (reloads + 1); len(exits) != 1 || exits["exit: stopped, exit code 0"] != want {
		t.Errorf("%v; want %d workers that stopped with exit code 0", exits, want)
	}
}
