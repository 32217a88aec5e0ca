//go:build unix

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("modes", serveModes) }

const number = 2 // of workers

// A server is a running serveModes and its state as the test knows it.
type server struct {
	*preforktest.Program
	t          *testing.T
	modes      []mode
	addresses  map[mode]string
	manager    int // pid of the current manager, which an upgrade changes
	generation int // of the current manager
}

func startServer(t *testing.T, ms []mode, args ...string) *server {
	t.Helper()
	var names []string
	for _, m := range ms {
		names = append(names, m.String())
	}
	args = append(args, "-number", strconv.Itoa(number),
		"-dir", preforktest.TempDir(t), "-modes", strings.Join(names, ","))
	program := preforktest.Start(t, "modes", args...)
	s := &server{Program: program, t: t, modes: ms, addresses: make(map[mode]string)}
	for _, m := range ms {
		s.addresses[m] = s.Expect(`^` + m.String() + ` on (\S+)$`)[1]
	}
	s.awaitManager()
	s.ExpectN(number, `worker ready slot=\d gen=1 `)
	return s
}

// awaitManager waits for the first line of a manager.
func (s *server) awaitManager() {
	s.t.Helper()
	s.manager, _ = strconv.Atoi(s.Expect(`^manager (\d+)$`)[1])
	s.generation = 1
}

// signal sends a signal to the current manager.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.manager, sig); err != nil {
		s.t.Fatalf("%v to manager %d: %v", sig, s.manager, err)
	}
}

// roll replaces the workers one after another. It does not wait for the drain
// of the replaced workers.
func (s *server) roll() {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.generation++
	s.Expect(fmt.Sprintf(`workers replaced gen=%d$`, s.generation))
}

// rollAndWait is roll, and also waits for the exit of the replaced workers.
func (s *server) rollAndWait() {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.generation++
	pattern := fmt.Sprintf(`workers replaced gen=%d$|worker gone slot=\d gen=%d `, s.generation, s.generation-1)
	s.ExpectN(number+1, pattern)
}

// reload replaces all workers at once.
func (s *server) reload() {
	s.t.Helper()
	s.signal(syscall.SIGUSR1)
	s.generation++
	s.ExpectN(number, fmt.Sprintf(`worker ready slot=\d gen=%d `, s.generation))
}

// upgrade replaces the manager, and waits for the exit of the old one's
// workers.
func (s *server) upgrade() {
	s.t.Helper()
	s.signal(syscall.SIGUSR2)
	old := s.generation
	s.awaitManager()
	// Two processes print these lines, in any order: the successor reports its
	// last worker to the old manager before it logs it.
	s.ExpectN(2*number, fmt.Sprintf(`worker ready slot=\d gen=1 |worker gone slot=\d gen=%d `, old))
}

// shutdown stops the server, and checks that no worker has failed or was
// killed.
func (s *server) shutdown() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.WaitGone()
	if state := s.Wait(); !state.Success() {
		s.t.Errorf("manager: %v", state)
	}
	failure := regexp.MustCompile(`worker failed|worker killed|reason=crashed|generation failed`)
	for _, line := range s.Lines() {
		if failure.MatchString(line) {
			s.t.Error(line)
		}
	}
}

// clients are the loads on a server, one for each mode.
type clients map[mode]*loadgen.Load

func (s *server) load(keepAlive, fresh int, pause func() time.Duration, limit time.Duration) clients {
	all := make(clients)
	for _, m := range s.modes {
		all[m] = loadgen.Start(loadgen.Config{
			Network: m.network, Address: s.addresses[m],
			KeepAlive: keepAlive, Fresh: fresh, Pause: pause, MaxTime: limit,
			Check: func(status int, body []byte) error {
				if status != 200 || string(body) != m.body() {
					return fmt.Errorf("status %d, %q", status, body)
				}
				return nil
			},
		})
	}
	return all
}

// succeeded returns the number of successful requests in all modes.
func (all clients) succeeded() (n int) {
	for _, l := range all {
		n += l.Result().OK
	}
	return n
}

// await waits until n more requests have succeeded in each mode.
func (all clients) await(t *testing.T, n int) {
	t.Helper()
	before := make(map[mode]int)
	for m, l := range all {
		before[m] = l.Result().OK
	}
	for m, l := range all {
		preforktest.WaitFor(t, fmt.Sprintf("%d more requests in mode %v", n, m), func() bool {
			return l.Result().OK >= before[m]+n
		})
	}
}

// stop stops the clients and returns their results, by mode and in total.
func (all clients) stop() (results map[mode]loadgen.Result, sum loadgen.Result) {
	results = make(map[mode]loadgen.Result)
	for m, l := range all {
		results[m] = l.Stop()
		sum.Merge(results[m])
	}
	return results, sum
}

// checkNoneFailed fails the test if requests have failed.
func checkNoneFailed(t *testing.T, name string, r loadgen.Result) {
	t.Helper()
	if r.Failed > 0 {
		t.Errorf("%s: %d of %d requests failed: %v",
			name, r.Failed, r.OK+r.Failed, errors.Join(r.Errors...))
	}
}

// latencies returns the latencies of a run in words.
func latencies(r loadgen.Result) string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v, max %v",
		round(r.Latency.Percentile(50)), round(r.Latency.Percentile(99)),
		round(r.Latency.Percentile(99.9)), round(r.Latency.Max))
}
