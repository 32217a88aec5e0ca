//go:build unix

package process_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("drains", drains) }

// drains serves HTTP in one worker, whose StopTimeout is its argument. It prints
// why the worker has exited.
func drains() {
	stop, err := time.ParseDuration(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, StopTimeout: stop, OnChildReap: func(_ *prefork.Manager, e prefork.Exit) {
		testprog.Print("exit: %s", e.Reason)
	}})
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("at %s", ln.Addr())
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		if got := w.StopTimeout(); got != stop {
			testprog.Print("exit: StopTimeout is %v", got)
		}
		return preforkhttp.Serve(w, ln, &http.Server{})
	})
}

// A connection that a client has just used delays the exit by half of StopTimeout,
// and after Ctrl-C by a moment. It never costs a SIGKILL.
func TestIdleConnectionDelaysExit(t *testing.T) {
	for _, c := range []struct {
		stop        string
		signals     []syscall.Signal
		least, most time.Duration
	}{
		{"2s", []syscall.Signal{term}, 900 * time.Millisecond, 1900 * time.Millisecond},
		{"30s", []syscall.Signal{syscall.SIGINT}, 0, 2 * time.Second},
		{"30s", []syscall.Signal{term, syscall.SIGINT}, 0, 2 * time.Second},
	} {
		t.Run(fmt.Sprint(c.stop, c.signals), func(t *testing.T) {
			p := preforktest.New(t, "drains", c.stop)
			p.Start()
			nc, err := net.Dial("tcp", p.Expect(`^at (\S+)$`)[1])
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
			if _, err := bufio.NewReader(nc).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for _, sig := range c.signals {
				p.Signal(sig)
				time.Sleep(50 * time.Millisecond)
			}
			if why := p.Expect(`^exit: (.*)$`)[1]; why != "stopped" {
				t.Errorf("the worker's exit: %s", why)
			}
			if took := time.Since(began); took < c.least || took > c.most {
				t.Errorf("it took %v, want %v to %v", took, c.least, c.most)
			}
			p.Wait()
		})
	}
}
