//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("spare", main) }

// start runs the example on a free port.
func start(t *testing.T, args ...string) (p *preforktest.Program, url string) {
	p = preforktest.Start(t, "spare", append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	url = p.Expect(`^serving on (http://\S+) with up to \d+ workers$`)[1]
	p.Expect(fmt.Sprintf(`kill %d `, p.PID()))
	p.Expect(`worker ready slot=0`)
	return p, url
}

func get(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %v", url, resp.Status, err)
	}
	return nil
}

func stop(t *testing.T, p *preforktest.Program) {
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// startClients starts n clients that send requests until end is called.
// Requests are distributed randomly, so the test ends them after their effect
// is visible.
func startClients(t *testing.T, n int, url string) (end func()) {
	var clients sync.WaitGroup
	var ended atomic.Bool
	for range n {
		clients.Go(func() {
			for !ended.Load() {
				if err := get(url); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	end = sync.OnceFunc(func() {
		ended.Store(true)
		clients.Wait()
	})
	t.Cleanup(end) // also if the test fails
	return end
}

// The pool grows to its maximum under load, and afterwards shrinks to the two
// workers that may be idle.
func TestGrowAndShrink(t *testing.T) {
	p, url := start(t, "-workers", "4")
	end := startClients(t, 8, url+"/slow")
	p.ExpectN(3, `worker ready`)
	p.Signal(syscall.SIGUSR1)
	n, _ := strconv.Atoi(p.Expect(`^(\d) of 4 workers$`)[1])
	const worker = `^  worker \d+ \(slot \d, generation 1\) (starting|ready|stopping), status [._R], \d+ requests$`
	p.ExpectN(n, worker)
	end()
	preforktest.WaitFor(t, "two workers", func() bool {
		p.Signal(syscall.SIGUSR1)
		return p.Expect(`^(\d) of 4 workers$`)[1] == "2"
	})
	p.ExpectN(2, `\) ready, status [._], \d+ requests$`)
	stop(t, p)
}

// A worker that has served enough requests is replaced, and no request fails.
func TestRecycle(t *testing.T) {
	p, url := start(t, "-workers", "4", "-requests", "20")
	end := startClients(t, 1, url)
	p.Expect(`worker gone .*reason=recycled`)
	end()
	stop(t, p)
}
