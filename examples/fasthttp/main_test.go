//go:build unix

package main

import (
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/load"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"fasthttp": main}) }

var long = flag.Bool("long", false, "100 reloads, not 10")

// Under load from clients that never retry, on new connections and on kept ones, reload after reload loses no request.
func TestReloadsUnderLoad(t *testing.T) {
	reloads := 10
	if *long {
		reloads = 100
	}
	const workers = 3
	p := preforktest.Start(t, "fasthttp", "-listen", "127.0.0.1:0", "-workers", fmt.Sprint(workers))
	address := p.Expect(`^serving on http://(\S+) with`)[1]
	p.ExpectN(workers, `worker ready`)
	began := time.Now()
	clients := load.Start(load.Config{Network: "tcp", Address: address, KeepAlive: 6, Fresh: 3, MaxTime: 5 * time.Minute})
	for range reloads {
		p.Signal(syscall.SIGHUP)
		p.ExpectN(workers, `worker ready`)
		served := clients.Result().OK
		preforktest.WaitFor(t, "100 requests served by the new workers", func() bool { return clients.Result().OK >= served+100 })
	}
	result := clients.Stop()
	p.Signal(syscall.SIGTERM)
	ended(t, p)
	t.Logf("%d reloads in %v: %v", reloads, time.Since(began).Round(time.Millisecond), result)
	if result.Failed > 0 || result.OK < 100*reloads {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
}

// ended waits for the end of the program, and checks that its workers ended well too.
func ended(t *testing.T, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker failed") || strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}
