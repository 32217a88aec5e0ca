//go:build linux

package monitor

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

var fleetSize = flag.Int("fleet", 200, "the number of services of TestFleet, with -long")

func init() { preforktest.RegisterOptional("monitor", monitorProgram) }

// monitorProgram is a program with a Monitor alone, as prefork watch is.
func monitorProgram() {
	debug.SetGCPercent(50)
	time.AfterFunc(10*time.Second, debug.FreeOSMemory)
	m, err := New(Config{Dir: os.Args[1], Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	m.watch = (&rig{dir: os.Args[1], scanned: make(chan struct{})}).watch
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	testprog.Print("running")
	if err := m.Run(ctx); err != nil {
		panic(err)
	}
}

// fleet makes services that do nothing, of a static program.
func fleet(t *testing.T, n int, files ...string) (r *rig, p *preforktest.Program) {
	r = newRig(t, Config{})
	for i := range n {
		r.service(fmt.Sprint("s", i), append([]string{"run: exec sleep 1000"}, files...)...)
	}
	p = preforktest.New(t, "monitor", r.dir)
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.Stdin = in
	p.Start()
	in.Close()
	p.Expect("running")
	t.Cleanup(func() {
		stdin.Close()
		p.Wait()
	})
	return r, p
}

// statuses counts the services in a state, as their files show it.
func (r *rig) statuses(n int, stat string) (count int) {
	for i := range n {
		b, _ := os.ReadFile(filepath.Join(r.dir, fmt.Sprint("s", i), "supervise", "stat"))
		if strings.TrimSpace(string(b)) == stat {
			count++
		}
	}
	return count
}

func (r *rig) pids(n int) (pids []int) {
	for i := range n {
		b, _ := os.ReadFile(filepath.Join(r.dir, fmt.Sprint("s", i), "supervise", "pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// byHand starts the scripts of a fleet as a simple program would, one after the
// other, and returns how long that takes: the floor of TestFleet.
func (r *rig) byHand(n int) time.Duration {
	begun := time.Now()
	for i := range n {
		cmd := exec.Command("./run")
		cmd.Dir = filepath.Join(r.dir, fmt.Sprint("s", i))
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
	}
	return time.Since(begun)
}

// With 200 services the program has at most 16 MiB, 20 threads, and nothing to do
// while nothing happens; killed all at once, they are up within a second, or within
// twice the time in which this machine can start so many. The bounds are for a
// machine that is not busy, so -long alone checks them.
func TestFleet(t *testing.T) {
	if !testprog.Long() {
		preforktest.Skipf(t, "-long measures a fleet")
	}
	n := *fleetSize
	r, p := fleet(t, n)
	begun := time.Now()
	preforktest.WaitFor(t, "all up", func() bool { return r.statuses(n, "run") == n })
	t.Logf("%d up in %v", n, time.Since(begun))
	time.Sleep(15 * time.Second) // the backoff of each ends some seconds after its start
	threads, _ := preforktest.Threads(p.PID())
	memory, files := procKiB(t, p.PID(), "VmRSS:"), procKiB(t, p.PID(), "RssFile:")
	before, _ := preforktest.ContextSwitches(p.PID())
	time.Sleep(10 * time.Second)
	after, _ := preforktest.ContextSwitches(p.PID())
	t.Logf("RSS %d KiB, %d of it of the binary, %d threads, %d context switches in 10 s", memory, files, threads, after-before)
	if memory > 16<<10 || threads > 20 || after-before > 2 {
		t.Error("too much: 16 MiB, 20 threads and no switches are allowed")
	}
	pids := r.pids(n)
	killed := time.Now()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	preforktest.WaitFor(t, "all up again", func() bool {
		now := r.pids(n)
		return len(now) == n && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(pids, pid) })
	})
	took, floor := time.Since(killed), r.byHand(n)
	t.Logf("all killed, and up again after %v; by hand %v", took, floor)
	if took > max(time.Second, 2*floor) {
		t.Error("too long")
	}
}

func procKiB(t *testing.T, pid int, field string) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[0] == field {
			return atoi(t, f[1])
		}
	}
	return 0
}

// Commands to services that crash in a loop, wait for their delay, or have a finish
// that hangs are carried out at once, and none is lost. With -long, which is for a
// machine that is not busy, at once is 10 ms, or twice as long as it takes to start a
// process, because that keeps one of the cores busy; the directory should be in
// memory, as supervise/ mostly is (TMPDIR=/dev/shm).
func TestCommandsInACrashLoop(t *testing.T) {
	n, commands, limit := 8, 64, 5*time.Second
	if testprog.Long() {
		n, commands, limit = *fleetSize, 400, 10*time.Millisecond
	}
	r := newRig(t, Config{Output: func(string, *prefork.Spawn) (func(int), func(prefork.Exit)) { return nil, nil }})
	for i := range n {
		name := fmt.Sprint("s", i)
		switch i % 4 {
		case 0: // crashes each second
			r.service(name, "run: exit 1")
		case 1:
			r.service(name, "run: exit 1", "backoff: 0,3600")
		case 2:
			r.service(name, "run: exit 1", "finish: exec sleep 1000", "timeout-finish: 0")
		case 3:
			r.service(name, "run: exec sleep 1000")
		}
	}
	if testprog.Long() {
		one := r.byHand(n) / time.Duration(n)
		limit = max(limit, 2*one)
		t.Logf("a start by hand: %v", one)
	}
	r.start()
	for i := range n {
		name := fmt.Sprint("s", i)
		preforktest.WaitFor(t, "state of "+name, func() bool {
			return i%4 == 0 || r.status(name).String() == []string{"", "down", "finish", "run"}[i%4] && (i%4 != 1 || !r.status(name).WaitsUntil.IsZero())
		})
	}
	var took []time.Duration
	for i := range commands {
		name := fmt.Sprint("s", i%n)
		c, want := "d", byte('d')
		if i/n%2 == 1 {
			c, want = "u", 'u'
		}
		begun := time.Now()
		r.control(name, c)
		for {
			b, _ := os.ReadFile(filepath.Join(r.dir, name, "supervise", "status"))
			if len(b) == 20 && b[17] == want {
				break
			}
			if time.Since(begun) > waitLimit {
				t.Fatalf("command %s to %s was lost: % x", c, name, b)
			}
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d commands: median %v, p99 %v, longest %v", len(took), took[len(took)/2], p99, took[len(took)-1])
	if p99 > limit {
		t.Errorf("p99 is more than %v", limit)
	}
	r.m.Kill()
}

// control writes to the FIFO of a service.
func (r *rig) control(name, commands string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, name, "supervise", "control"), os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(commands); err != nil {
		r.t.Fatal(err)
	}
}
