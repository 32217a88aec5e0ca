//go:build unix

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

const number = 2 // of workers

// server is serveModes as it runs, and what a test knows of it.
type server struct {
	*preforktest.Program
	t          *testing.T
	modes      []mode
	addresses  map[mode]string
	manager    int // pid: each upgrade brings another
	generation int // of this manager
}

func startServer(t *testing.T, ms []mode, args ...string) *server {
	t.Helper()
	var names []string
	for _, m := range ms {
		names = append(names, m.String())
	}
	args = append(args, "-number", strconv.Itoa(number), "-dir", preforktest.TempDir(t), "-modes", strings.Join(names, ","))
	s := &server{Program: preforktest.Start(t, "modes", args...), t: t, modes: ms, addresses: make(map[mode]string)}
	for _, m := range ms {
		s.addresses[m] = s.Expect(`^` + m.String() + ` on (\S+)$`)[1]
	}
	s.begins()
	s.ExpectN(number, `worker ready slot=\d gen=1 `)
	return s
}

// begins waits for a manager.
func (s *server) begins() {
	s.t.Helper()
	s.manager, _ = strconv.Atoi(s.Expect(`^manager (\d+)$`)[1])
	s.generation = 1
}

// signal is Signal for the manager that there is now.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.manager, sig); err != nil {
		s.t.Fatalf("%v to manager %d: %v", sig, s.manager, err)
	}
}

// roll replaces the workers one after another, and returns when that is done; those replaced may still be draining.
func (s *server) roll() {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.generation++
	s.Expect(fmt.Sprintf(`workers replaced gen=%d$`, s.generation))
}

// rollAndWait is roll, and waits for the end of those replaced.
func (s *server) rollAndWait() {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.generation++
	s.ExpectN(number+1, fmt.Sprintf(`workers replaced gen=%d$|worker gone slot=\d gen=%d `, s.generation, s.generation-1))
}

// reload replaces the workers all at once.
func (s *server) reload() {
	s.t.Helper()
	s.signal(syscall.SIGUSR1)
	s.generation++
	s.ExpectN(number, fmt.Sprintf(`worker ready slot=\d gen=%d `, s.generation))
}

// upgrade replaces the manager, and returns when the old one's workers have gone.
func (s *server) upgrade() {
	s.t.Helper()
	s.signal(syscall.SIGUSR2)
	old := s.generation
	s.begins()
	// By two processes, so in any order: the successor tells the old manager of its last worker before it logs it.
	s.ExpectN(2*number, fmt.Sprintf(`worker ready slot=\d gen=1 |worker gone slot=\d gen=%d `, old))
}

// end stops the server, and checks that no worker has failed or was killed.
func (s *server) end() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.WaitGone()
	if state := s.Wait(); !state.Success() {
		s.t.Errorf("it ended with %v", state)
	}
	for _, line := range s.Lines() {
		if strings.Contains(line, "worker failed") || strings.Contains(line, "worker killed") || strings.Contains(line, "reason=crashed") ||
			strings.Contains(line, "given up") {
			s.t.Error(line)
		}
	}
}

// clients are the loads on a server, one for each of its modes.
type clients map[mode]*loadgen.Load

func (s *server) load(keepAlive, fresh int, pause func() time.Duration, limit time.Duration) clients {
	all := make(clients)
	for _, m := range s.modes {
		all[m] = loadgen.Start(loadgen.Config{
			Network: m.network, Address: s.addresses[m], KeepAlive: keepAlive, Fresh: fresh, Pause: pause, MaxTime: limit,
			Check: func(status int, body []byte) error {
				if status != 200 || string(body) != m.answer() {
					return fmt.Errorf("status %d, %q", status, body)
				}
				return nil
			},
		})
	}
	return all
}

// served is how many requests were answered in all modes.
func (all clients) served() (n int) {
	for _, l := range all {
		n += l.Result().OK
	}
	return n
}

// more waits until n more requests were answered in each mode, by workers that there are now.
func (all clients) more(t *testing.T, n int) {
	t.Helper()
	from := make(map[mode]int)
	for m, l := range all {
		from[m] = l.Result().OK
	}
	for m, l := range all {
		preforktest.WaitFor(t, fmt.Sprintf("%d more requests served: %v", n, m), func() bool { return l.Result().OK >= from[m]+n })
	}
}

// stop returns what was counted, by mode and in all.
func (all clients) stop() (results map[mode]loadgen.Result, sum loadgen.Result) {
	results = make(map[mode]loadgen.Result)
	for m, l := range all {
		results[m] = l.Stop()
		sum.Merge(results[m])
	}
	return results, sum
}

// lost fails the test for requests that were lost.
func lost(t *testing.T, what any, r loadgen.Result) {
	t.Helper()
	if r.Failed > 0 {
		t.Errorf("%v: %d of %d requests failed: %v", what, r.Failed, r.OK+r.Failed, errors.Join(r.Errors...))
	}
}

// times are the figures of a run.
func times(r loadgen.Result) string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v, max %v", round(r.Latency.Percentile(50)), round(r.Latency.Percentile(99)),
		round(r.Latency.Percentile(99.9)), round(r.Latency.Max))
}
