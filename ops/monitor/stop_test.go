//go:build unix

package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

// Services that ignore TERM are stopped at once, each by its own limit and not one
// after the other.
func TestStopInParallel(t *testing.T) {
	const n, limit = 10, 300 * time.Millisecond
	r := newRig(t, Config{StopTimeout: limit})
	for i := range n / 2 {
		r.file(fmt.Sprint("prog", i), "#!/bin/sh\n"+stubborn+"\n")
		r.service(fmt.Sprint("dir", i), "run: "+stubborn, fmt.Sprint("timeout-kill: ", limit.Milliseconds()), "log/run: exec cat >/dev/null; ", "finish: echo finish >&2")
	}
	r.start()
	var pids []int
	for range n / 2 {
		// Those of the others go to their loggers.
		pids = append(pids, atoi(t, r.want(`up (\d+)`)[0]))
	}
	for i := range n / 2 {
		r.state(fmt.Sprint("dir", i), "run")
	}
	begun := time.Now()
	r.close()
	if d := time.Since(begun); d < limit || d > n*limit {
		t.Errorf("stopped in %v, with a limit of %v", d, limit)
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	finished := 0
	for _, line := range r.written() {
		finished += count(line == "finish")
	}
	if finished != n/2 {
		t.Errorf("%d of %d finish scripts were run", finished, n/2)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Kill ends everything at once: services that ignore TERM, finish, loggers and
// control scripts.
func TestKill(t *testing.T) {
	r := newRig(t, Config{StopTimeout: -1})
	r.file("prog", "#!/bin/sh\n"+stubborn+"\n")
	r.service("dir", "run: "+stubborn, "log/run: trap '' TERM; echo logger; exec sleep 1000", "control/h: echo control; exec sleep 1000", "finish: echo late >&2; exec sleep 1000")
	r.service("fin", "run: exit 1", "finish: echo finish; exec sleep 1000", "timeout-finish: 0")
	r.start()
	seen := map[string]bool{}
	for !seen["up"] || !seen["logger"] || !seen["finish"] {
		name, _, _ := strings.Cut(r.line(), " ")
		seen[name] = true
	}
	r.state("dir", "run")
	r.do("dir", "h")
	r.m.Shutdown()
	r.state("dir", "run, got TERM, want exit")
	begun := time.Now()
	r.m.Kill()
	r.close()
	if d := time.Since(begun); d > 4*time.Second { // less than the limit of a control script
		t.Errorf("killed in %v", d)
	}
}

// A stop that waits names what it waits for.
func TestStopNamesWhatItWaitsFor(t *testing.T) {
	r := newRig(t, Config{})
	r.m.patience = 10 * time.Millisecond
	r.service("dir", "run: "+stubborn)
	r.start()
	pid := r.want(`up (\d+)`)[0]
	r.m.Shutdown()
	preforktest.WaitFor(t, "a line", func() bool { return strings.Contains(r.log.String(), "stop waits") })
	if !strings.Contains(r.log.String(), "dir (run, pid "+pid+")") {
		t.Error("the line does not name the process")
	}
	syscall.Kill(atoi(t, pid), syscall.SIGKILL)
}

// Everything that services have needed is given back when they have gone.
func TestLeaks(t *testing.T) {
	preforktest.NoLeaks(t)
	r := newRig(t, Config{})
	r.start()
	r.churn(3)
	before, threads := descriptors(t), threadCount()
	times := 100
	if testprog.Long() {
		times = 10_000
	}
	r.churn(times)
	t.Logf("%d services have come and gone: %d descriptors and %d threads before, %d and %d now", times, before, threads, descriptors(t), threadCount())
	if after := descriptors(t); after > before+3 {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}

// threadCount returns the number of threads of this process; 0 if it is unknown.
func threadCount() int {
	n, _ := preforktest.Threads(os.Getpid())
	return n
}

// churn adds services and removes them.
func (r *rig) churn(times int) {
	r.t.Helper()
	for i := range times {
		name := fmt.Sprint("s", i)
		r.service(name, "run: exec sleep 1000", "log/run: exec cat >/dev/null")
		if i%10 > 0 {
			r.service(name, "down: ", "log/down: ")
		}
		r.change(scan.Added, name)
		if i%10 == 0 {
			r.state(name, "run")
		}
		r.change(scan.Removed, name)
		preforktest.WaitFor(r.t, "end of "+name, func() bool { return len(r.m.Services()) == 0 })
		os.RemoveAll(filepath.Join(r.dir, name))
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := preforktest.Descriptors(os.Getpid())
	if err != nil {
		preforktest.Skipf(t, "%v", err)
	}
	return len(all)
}

// A service whose directory has another supervisor is passed over, and tried again.
func TestLockedByAnother(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	r.want("up .*")
	other := newRig(t, Config{})
	if err := os.Symlink(filepath.Join(r.dir, "web"), filepath.Join(other.dir, "web")); err != nil {
		t.Fatal(err)
	}
	other.start()
	preforktest.WaitFor(t, "event", func() bool { return other.hasEvent(PassedOver, "web") })
	if !strings.Contains(other.log.String(), "process "+strconv.Itoa(os.Getpid())) {
		t.Error("the log does not name the process")
	}
	for range 2 { // two more attempts, with the same reason
		other.change(scan.Added, "web")
		other.opened()
	}
	if n := strings.Count(other.log.String(), "cannot supervise"); n != 1 {
		t.Errorf("%d lines of the log for one reason, want 1", n)
	}
	if p := other.status("web").Problem; !strings.Contains(p, "is locked") {
		t.Errorf("the status has the problem %q", p)
	}
	if err := other.m.Do("web", 't'); err == nil || !strings.Contains(err.Error(), "is locked") {
		t.Errorf("a command has the error %v", err)
	}
	r.close()
	other.m.Rescan()
	other.want("up .*")
}
