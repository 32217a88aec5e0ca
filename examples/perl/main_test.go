//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"perl": main}) }

// start runs the example on a port that is free. Without Starlet the test is skipped, but not in CI.
func start(t *testing.T, workers int) (p *preforktest.Program, address string) {
	p = preforktest.New(t, "perl", "-listen", "127.0.0.1:0", "-workers", fmt.Sprint(workers), "-app", "app.psgi")
	if out, err := exec.Command("sh", "-c", "command -v plackup && perl -MPlack::Handler::Starlet -e 1").CombinedOutput(); err != nil {
		const missing = "needs Starlet (Debian: apt-get install starlet): %v\n%s"
		if os.Getenv("CI") == "true" {
			t.Fatalf(missing, err, out)
		}
		preforktest.Skipf(t, missing, err, out)
	}
	p.Start()
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

// Ten times all workers are replaced under load from clients that never retry, and no request is lost.
func TestReloadsUnderLoad(t *testing.T) {
	p, address := start(t, 3)
	var latest atomic.Int64 // the newest generation that has answered
	began := time.Now()
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 3, Fresh: 3, Timeout: 30 * time.Second, MaxTime: 5 * time.Minute,
		Check: func(status int, body []byte) error {
			var generation int64
			if _, err := fmt.Sscanf(string(body), "Perl of generation %d,", &generation); err != nil || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			if now := latest.Load(); generation > now {
				latest.CompareAndSwap(now, generation)
			}
			return nil
		},
	})
	const reloads = 10
	for generation := int64(1); generation <= 1+reloads; generation++ {
		preforktest.WaitFor(t, fmt.Sprint("an answer of generation ", generation), func() bool { return latest.Load() >= generation })
		served := clients.Result().OK
		preforktest.WaitFor(t, "100 requests more", func() bool { return clients.Result().OK >= served+100 })
		if generation <= reloads {
			p.Signal(syscall.SIGHUP)
		}
	}
	result := clients.Stop()
	t.Logf("%d reloads in %v: %v", reloads, time.Since(began).Round(time.Millisecond), result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	preforktest.WaitFor(t, "workers with nothing to do sleep", func() bool {
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
		t.Errorf("it ended with %v", state)
	}
}

// The only worker is told to stop: it finishes its request, and who waits in the queue is served by the next one.
func TestQueueOutlivesTheWorker(t *testing.T) {
	p, address := start(t, 1)
	slow, queued := make(chan string), make(chan string)
	ask := func(path string, answer chan string) { answer <- get("http://" + address + path) }
	go ask("/slow", slow)
	p.Expect(`^a slow request begins$`)
	go ask("/", queued)
	p.Signal(syscall.SIGHUP)
	if got := <-slow; got != "slow, and not cut off\n" {
		t.Errorf("the request under way was answered %q", got)
	}
	var pid int
	if got := <-queued; !scan(got, "Perl of generation 2, pid %d\n", &pid) {
		t.Errorf("the request that waited was answered %q", got)
	}
	go ask("/slow", slow)
	p.Expect(`^a slow request begins$`)
	p.Signal(syscall.SIGTERM)
	if got := <-slow; got != "slow, and not cut off\n" {
		t.Errorf("the last request was answered %q", got)
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}

func scan(text, format string, into ...any) bool {
	n, err := fmt.Sscanf(text, format, into...)
	return err == nil && n == len(into)
}
