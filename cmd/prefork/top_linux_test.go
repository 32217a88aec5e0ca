package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

var (
	topTime    = flag.Duration("top.time", 10*time.Second, "how long TestTopCPU watches top")
	topWorkers = flag.Int("top.workers", 100, "how many workers the manager of TestTopCPU has")
)

// With 100 workers top should use at most 2 % of a CPU, and its memory should not
// grow. The test prints both:
//
//	go test -run TopCPU -long -v -top.time 5m -top.workers 1000
func TestTopCPU(t *testing.T) {
	if !testprog.Long() {
		preforktest.Skipf(t, "it takes 10 seconds: use -long")
	}
	f := startFake(t)
	grow(f, *topWorkers)
	s := startScreen(t, 200, 50)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.keys(exe+" -s "+f.socket+" top", "Enter")
	s.expect(`SLOT`)
	top := s.child()
	for part := range 5 { // each a fifth of the time
		before, began := usageOf(t, top), time.Now()
		time.Sleep(*topTime / 5) // the time that is measured
		f.mu.Lock()
		for i := range f.status.Pools[0].Workers { // all numbers on the screen change
			f.status.Pools[0].Workers[i].Requests += uint64(i)
		}
		f.mu.Unlock()
		now := usageOf(t, top)
		took := time.Since(began)
		t.Logf("part %d, %v: %.1f %% of a CPU, %.1f MiB resident", part+1, took.Round(time.Second),
			100*(now.cpu-before.cpu).Seconds()/took.Seconds(), float64(now.resident)/(1<<20))
	}
	s.keys("q")
}

// grow gives the pool of a fake a number of workers in all.
func grow(f *fake, workers int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.status.Pools[0]
	for i := range workers - len(p.Workers) {
		w := p.Workers[0]
		w.ID, w.Slot, w.PID, w.Requests = 100+i, 4+i, 5000+i, uint64(i)
		p.Workers = append(p.Workers, w)
	}
}

type usage struct {
	cpu      time.Duration
	resident int64 // bytes
}

// usageOf reads the CPU time and the memory of a process.
func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from field 3 on
	var user, system, pages int64
	for i, n := range map[int]*int64{11: &user, 12: &system, 21: &pages} {
		if _, err := fmt.Sscan(fields[i], n); err != nil {
			t.Fatal(err)
		}
	}
	const tick = 10 * time.Millisecond
	return usage{time.Duration(user+system) * tick, pages * int64(os.Getpagesize())}
}
