//go:build unix

package preforkhttp

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

// A socket is bound, as by the manager, and outlives every listener made of it.
type socket struct {
	ln net.Listener
	f  *os.File
}

func bind(t testing.TB, network string) *socket {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(preforktest.SocketDir(t), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); ln.Close() })
	return &socket{ln, f}
}

// listener returns a worker's own copy of the socket.
func (s *socket) listener(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.FileListener(s.f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// A serveFunc is serveNoPause or shutdownOnly.
type serveFunc func(context.Context, time.Duration, net.Listener, *http.Server) error

// shutdownOnly drains by http.Server.Shutdown alone.
func shutdownOnly(ctx context.Context, _ time.Duration, ln net.Listener, srv *http.Server) error {
	ended := make(chan error, 1)
	context.AfterFunc(ctx, func() { ended <- srv.Shutdown(context.Background()) })
	srv.Serve(ln)
	return <-ended
}

// reload replaces the worker n times under load and returns the results of the
// clients. The new worker runs before the old one stops.
func reload(t testing.TB, serve serveFunc, n int, limit time.Duration, s *socket,
	cfg loadgen.Config) loadgen.Result {
	t.Helper()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
		fmt.Fprintln(w, "hello")
	})
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		ln := s.listener(t)
		srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
		go func() { done <- serve(ctx, limit, ln, srv) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	cfg.Network, cfg.Address = s.ln.Addr().Network(), s.ln.Addr().String()
	cfg.MaxTime = 5 * time.Minute
	stop := start()
	l := loadgen.Start(cfg)
	for range n {
		// Every worker serves some requests, so that each stops in the middle of work.
		for seen := l.Result().OK; l.Result().OK < seen+20 && l.Result().Failed < 1000; {
			time.Sleep(time.Millisecond)
		}
		next := start()
		stop()
		stop = next
	}
	res := l.Stop()
	stop()
	return res
}

func TestReloadLosesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, c := range []struct {
			method, body string
			reloads      int
		}{{"GET", "", 250}, {"POST", strings.Repeat("body ", 2000), 50}} {
			t.Run(network+"/"+c.method, func(t *testing.T) {
				if testing.Short() {
					c.reloads /= 5
				}
				cfg := loadgen.Config{KeepAlive: 16, Fresh: 4, Body: c.body}
				res := reload(t, serveNoPause, c.reloads, 5*time.Second, bind(t, network), cfg)
				t.Log(res)
				if res.Failed > 0 || res.IdleClosed > 0 {
					t.Errorf("failed %d, closed while idle %d; want none: %v",
						res.Failed, res.IdleClosed, res.Errors)
				}
				if res.Closing < c.reloads {
					t.Errorf("%d connections closed by the header in %d reloads", res.Closing, c.reloads)
				}
			})
		}
	}
}

// pausing returns clients slower than the limit, so that many connections are
// closed while a request is on its way.
func pausing() loadgen.Config {
	return loadgen.Config{
		KeepAlive: 64,
		Pause:     func() time.Duration { return rand.N(60 * time.Millisecond) },
	}
}

const pausingLimit = 20 * time.Millisecond

// TestComparison compares serve with Shutdown alone. It asserts nothing, because
// the losses of Shutdown are random. So is the loss of a request that reaches
// the server, at the limit, between reading the end of the stream and the close.
// TestCloseIdleKeepsReceivedData tests requests that arrive earlier.
func TestComparison(t *testing.T) {
	if testing.Short() {
		preforktest.Skipf(t, "asserts nothing")
	}
	for _, network := range []string{"tcp", "unix"} {
		for _, c := range []struct {
			name  string
			serve serveFunc
		}{{"Shutdown", shutdownOnly}, {"Serve", serveNoPause}} {
			busy := loadgen.Config{KeepAlive: 16, Fresh: 4}
			res := reload(t, c.serve, 50, 5*time.Second, bind(t, network), busy)
			t.Logf("%-4s %-8s busy clients:    %v", network, c.name, res)
			res = reload(t, c.serve, 20, pausingLimit, bind(t, network), pausing())
			t.Logf("%-4s %-8s pausing clients: %v", network, c.name, res)
		}
	}
}
