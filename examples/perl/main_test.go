//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("perl", main) }

// start runs the example on a free port. It skips the test if Starlet is not
// installed.
func start(t *testing.T, workers int) (p *preforktest.Program, address string) {
	const install = "Debian: apt-get install starlet"
	preforktest.NeedCommand(t, "plackup", install)
	perl := preforktest.NeedCommand(t, "perl", install)
	if err := exec.Command(perl, "-MPlack::Handler::Starlet", "-e", "1").Run(); err != nil {
		preforktest.Missingf(t, "Starlet is not installed: %s", install)
	}
	p = preforktest.Start(t, "perl", "-listen", "127.0.0.1:0",
		"-workers", fmt.Sprint(workers), "-app", "app.psgi")
	return p, p.Expect(`^serving on http://(\S+)$`)[1]
}

func get(url string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// startLoad starts clients that never retry. They store the newest generation
// that has responded in latest.
func startLoad(address string, latest *atomic.Int64) *loadgen.Load {
	return loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 3, Fresh: 3,
		Timeout: 30 * time.Second, MaxTime: 5 * time.Minute,
		Check: func(status int, body []byte) error {
			var generation int64
			if !scan(string(body), "Perl of generation %d,", &generation) || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			if old := latest.Load(); generation > old {
				latest.CompareAndSwap(old, generation)
			}
			return nil
		},
	})
}

// Ten reloads under load lose no request.
func TestReloadsUnderLoad(t *testing.T) {
	p, address := start(t, 3)
	var latest atomic.Int64
	began := time.Now()
	clients := startLoad(address, &latest)
	const reloads = 10
	for generation := int64(1); generation <= 1+reloads; generation++ {
		preforktest.WaitFor(t, fmt.Sprint("a response of generation ", generation), func() bool {
			return latest.Load() >= generation
		})
		served := clients.Result().OK
		preforktest.WaitFor(t, "100 more requests", func() bool {
			return clients.Result().OK >= served+100
		})
		if generation <= reloads {
			p.Signal(syscall.SIGHUP)
		}
	}
	result := clients.Stop()
	t.Logf("%d reloads in %v: %v", reloads, time.Since(began).Round(time.Millisecond), result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	preforktest.WaitFor(t, "idle workers that sleep", func() bool {
		workers, err := preforktest.Children(p.PID())
		asleep := 0
		for _, w := range workers {
			if w.State == 'S' {
				asleep++
			}
		}
		return err != nil || asleep == 3
	})
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// A stopping worker finishes its request, and its replacement serves a
// connection in the accept queue.
func TestQueueOutlivesTheWorker(t *testing.T) {
	p, address := start(t, 1)
	slow, queued := make(chan string), make(chan string)
	request := func(path string, response chan string) { response <- get("http://" + address + path) }
	go request("/slow", slow)
	p.Expect(`^slow request begins$`)
	go request("/", queued)
	p.Signal(syscall.SIGHUP)
	if got := <-slow; got != "slow response, complete\n" {
		t.Errorf("response to the request in flight: %q", got)
	}
	var pid int
	if got := <-queued; !scan(got, "Perl of generation 2, pid %d\n", &pid) {
		t.Errorf("response to the request in the queue: %q", got)
	}
	go request("/slow", slow)
	p.Expect(`^slow request begins$`)
	p.Signal(syscall.SIGTERM)
	if got := <-slow; got != "slow response, complete\n" {
		t.Errorf("response to the last request: %q", got)
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// scan reports whether text has the format, and stores its values.
func scan(text, format string, into ...any) bool {
	n, err := fmt.Sscanf(text, format, into...)
	return err == nil && n == len(into)
}
