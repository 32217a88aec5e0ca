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
)

// socket is what the manager holds: a bound socket that outlives every listener made of it.
type socket struct {
	ln net.Listener
	f  *os.File
}

func bind(t testing.TB, network string) *socket {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
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

// listener is a worker's own copy, as inherited.
func (s *socket) listener(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.FileListener(s.f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serveFunc is serve, or what it is compared with.
type serveFunc func(ctx context.Context, limit time.Duration, ln net.Listener, srv *http.Server) error

// shutdownOnly is what everyone writes first.
func shutdownOnly(ctx context.Context, _ time.Duration, ln net.Listener, srv *http.Server) error {
	ended := make(chan error, 1)
	context.AfterFunc(ctx, func() { ended <- srv.Shutdown(context.Background()) })
	srv.Serve(ln)
	return <-ended
}

// reload replaces the worker n times under load, the new one running before the old one is told to stop, and returns what
// the clients saw.
func reload(t testing.TB, serve serveFunc, n int, limit time.Duration, s *socket, cfg loadgen.Config) loadgen.Result {
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
		// Some requests for every worker, so that each is told to stop in the midst of work.
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
				res := reload(t, serve, c.reloads, 5*time.Second, bind(t, network), cfg)
				t.Log(res)
				if res.Failed > 0 || res.IdleClosed > 0 {
					t.Errorf("failed %d, closed while idle %d; want none: %v", res.Failed, res.IdleClosed, res.Errors)
				}
				if res.Closing < c.reloads {
					t.Errorf("%d connections were told to close in %d reloads", res.Closing, c.reloads)
				}
			})
		}
	}
}

// pausing clients are slower than the limit, so that many connections are closed just when a request is on its way.
func pausing() loadgen.Config {
	return loadgen.Config{KeepAlive: 64, Pause: func() time.Duration { return rand.N(60 * time.Millisecond) }}
}

const pausingLimit = 20 * time.Millisecond

// TestComparison shows what the drain is for. It asserts nothing: what Shutdown loses is a matter of luck, and so is a
// request that reaches the server in the microseconds between the end that it reads and its close, at the limit.
// What has reached it by then is for TestExpireLeavesWhatHasCome.
func TestComparison(t *testing.T) {
	if testing.Short() {
		t.Skip("asserts nothing")
	}
	for _, network := range []string{"tcp", "unix"} {
		for _, c := range []struct {
			name  string
			serve serveFunc
		}{{"Shutdown", shutdownOnly}, {"Serve", serve}} {
			res := reload(t, c.serve, 50, 5*time.Second, bind(t, network), loadgen.Config{KeepAlive: 16, Fresh: 4})
			t.Logf("%-4s %-8s busy clients:    %v", network, c.name, res)
			res = reload(t, c.serve, 20, pausingLimit, bind(t, network), pausing())
			t.Logf("%-4s %-8s pausing clients: %v", network, c.name, res)
		}
	}
}
