//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
	"github.com/valyala/fasthttp"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() {
	preforktest.Register("fasthttp", main)
	preforktest.Register("Shutdown", func() { serveWithShutdown(&fasthttp.Server{}) })
	preforktest.Register("CloseOnShutdown", func() {
		serveWithShutdown(&fasthttp.Server{CloseOnShutdown: true})
	})
}

var long = flag.Bool("long", false, "do 100 reloads instead of 10")

func reloads() int {
	if *long {
		return 100
	}
	return 10
}

// reload replaces the workers of a program repeatedly under load, on new and on
// persistent connections. The clients never retry.
func reload(t *testing.T, program string) loadgen.Result {
	t.Helper()
	const workers = 3
	p := preforktest.Start(t, program, "-listen", "127.0.0.1:0", "-workers", fmt.Sprint(workers))
	address := p.Expect(`^serving on http://(\S+) with`)[1]
	p.ExpectN(workers, `worker ready`)
	began := time.Now()
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 6, Fresh: 3, MaxTime: 5 * time.Minute,
	})
	for range reloads() {
		p.Signal(syscall.SIGHUP)
		p.ExpectN(workers, `worker ready`)
		served := clients.Result().OK
		preforktest.WaitFor(t, "100 requests served by the new workers", func() bool {
			return clients.Result().OK >= served+100
		})
	}
	result := clients.Stop()
	p.Signal(syscall.SIGTERM)
	waitExit(t, p)
	t.Logf("%d reloads in %v: %v", reloads(), time.Since(began).Round(time.Millisecond), result)
	return result
}

// Repeated reloads lose no request.
func TestReloadsUnderLoad(t *testing.T) {
	result := reload(t, "fasthttp")
	if result.Failed > 0 || result.OK < 100*reloads() {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
}

// TestComparison counts the requests that are lost without package drain. It
// checks nothing, because the number depends on timing.
func TestComparison(t *testing.T) {
	for _, program := range []string{"Shutdown", "CloseOnShutdown"} {
		t.Run(program, func(t *testing.T) {
			if result := reload(t, program); result.Failed > 0 {
				t.Logf("example: %v", result.Errors[0])
			}
		})
	}
}

// serveWithShutdown is the example with fasthttp's Shutdown instead of package
// drain.
func serveWithShutdown(srv *fasthttp.Server) {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{MaxWorkers: *workers, TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		syscall.SIGHUP:  {Signal: syscall.SIGTERM},
	}})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		fmt.Printf("serving on http://%s with %d workers\n", ln.Addr(), *workers)
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		srv.Handler = func(ctx *fasthttp.RequestCtx) { fmt.Fprintln(ctx, "hello") }
		return shutdown(w.Context(), ln, srv)
	}); err != nil {
		log.Fatal(err)
	}
}

// shutdown stops the server in the obvious way, which loses requests.
func shutdown(ctx context.Context, ln net.Listener, srv *fasthttp.Server) error {
	done := make(chan error, 1)
	context.AfterFunc(ctx, func() { done <- srv.ShutdownWithContext(context.Background()) })
	if err := srv.Serve(ln); err != nil {
		return err
	}
	return <-done
}

// waitExit waits for the exit of the program. It fails the test if the program
// or a worker has failed.
func waitExit(t *testing.T, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker failed") || strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}

// awaitAnswer sends a request and reads the beginning of its response.
func awaitAnswer(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A stopping program serves the connections in the accept queue, because no
// other process would.
func TestQueueAtTheEnd(t *testing.T) {
	const clients = 50
	p := preforktest.Start(t, "fasthttp", "-listen", "127.0.0.1:0", "-workers", "1")
	address := p.Expect(`^serving on http://(\S+) with`)[1]
	p.Expect(`worker ready`)
	workers, err := preforktest.Children(p.PID())
	if err != nil {
		preforktest.Skipf(t, "cannot find the pid of the worker: %v", err)
	}
	// A worker that has answered has called Context; before that, TERM would end it.
	awaitAnswer(t, address)
	thaw := preforktest.Freeze(t, workers[0].PID) // so that connections stay in the queue
	conns := make([]net.Conn, clients)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		fmt.Fprint(conns[i], "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	}
	p.Signal(syscall.SIGTERM)
	p.Expect(`worker stopping`)
	thaw()
	for i, c := range conns {
		response := make([]byte, len("HTTP/1.1 200"))
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(response); err != nil || string(response) != "HTTP/1.1 200" {
			t.Errorf("connection %d of %d: %q, %v", i+1, clients, response, err)
		}
	}
	waitExit(t, p)
}
