//go:build unix

package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("operated", operated) }

// operated is a program that another goroutine operates: it reads commands from
// standard input and prints their outcomes, and every event that it follows.
func operated() {
	var pm *prefork.Manager
	pm = testprog.NewManager(prefork.Config{
		MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Readiness: prefork.Readiness{Explicit: true}, SpawnInterval: time.Millisecond,
		Reload: func() ([]byte, error) {
			testprog.Print("Reload is called")
			passed, _ := nextPassed.Load().(string)
			switch passed {
			case "typo":
				return nil, errors.New("a typo")
			case "old":
				nextPassed.Store("new")
				go func() {
					gen, err := pm.Reload(context.Background(), prefork.Forward{})
					testprog.Print("reload of the new one: %d, %v", gen, err)
				}()
			}
			return []byte(passed), nil
		},
	})
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	isSuccessor := false
	select {
	case <-prefork.TookOver():
	default:
		isSuccessor = true
		testprog.Print("successor %d", os.Getpid())
	}
	if !prefork.IsWorker() && !isSuccessor { // a successor has the same standard input
		now, _ := pm.Follow(func(rec prefork.Record) {
			testprog.Print("event %d %s: %v", rec.Seq, strings.TrimPrefix(fmt.Sprintf("%T", rec.Event), "prefork."), rec.Event)
		})
		testprog.Print("follows from %d, %d workers, reaper %d", now.Seq, len(now.Workers), prefork.ReaperPID())
		go operate(pm, ln.Addr().String())
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		switch string(w.Passed()) {
		case "crash":
			os.Exit(3)
		case "new":
			testprog.Print("worker %d has the new one", w.Ordinal())
		}
		w.Served(5)
		w.Ready()
		if w.Ordinal() == 1 && os.Getpid() != w.ManagerPID() {
			printNoOps(pm)
		}
		testprog.Print("worker %d serves", w.Ordinal())
		go printLevels(pm, w.Ordinal())
		<-w.Context().Done()
		return nil
	})
	testprog.Print("Run returned %v", err)
}

// printNoOps prints the results of commands in a worker.
func printNoOps(pm *prefork.Manager) {
	ctx := context.Background()
	gen, err1 := pm.Reload(ctx, prefork.Forward{})
	pid, err2 := pm.RequestUpgrade(ctx)
	now, stop := pm.Follow(func(prefork.Record) {})
	stop()
	pm.Note("x", "y")
	pm.SetLogLevel(slog.LevelError)
	testprog.Print("in a worker: %d %d %d %d %v", gen, pid, now.Seq, len(pm.Queues()), errors.Join(err1, err2, pm.Ping(ctx), pm.ReplaceWorker(ctx, 1), pm.SignalWorker(1, usr1)))
}

// printLevels prints the levels of a worker's log other than the first.
func printLevels(pm *prefork.Manager, ordinal int) {
	for last := slog.LevelInfo; ; time.Sleep(time.Millisecond) {
		if now := pm.LogLevel().Level(); now != last {
			testprog.Print("worker %d logs from %v", ordinal, now)
			last = now
		}
	}
}

// nextPassed is what the next Reload returns.
var nextPassed atomic.Value

// operate carries out the commands in standard input, one a line.
func operate(pm *prefork.Manager, address string) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		switch command {
		case "ping":
			testprog.Print("ping: %v", pm.Ping(ctx))
		case "next":
			nextPassed.Store(rest)
			testprog.Print("next: %s", rest)
		case "reload":
			f := map[string]prefork.Forward{"plain": {Signal: term}, "staggered": {Interval: time.Millisecond}}[rest]
			gen, err := pm.Reload(ctx, f)
			testprog.Print("reload: %d, %v", gen, err)
		case "replace":
			n, _ := strconv.Atoi(rest)
			testprog.Print("replace: %v", pm.ReplaceWorker(ctx, n))
		case "kill":
			n, _ := strconv.Atoi(rest)
			testprog.Print("kill: %v", pm.SignalWorker(n, syscall.SIGKILL))
		case "upgrade":
			pid, err := pm.RequestUpgrade(ctx)
			testprog.Print("upgrade: %d, %v", pid, err)
		case "state":
			printState(pm.Snapshot())
		case "queues":
			c, err := net.Dial("tcp", address)
			if err != nil {
				panic(err)
			}
			for _, q := range pm.Queues() {
				testprog.Print("queue of %s %s, slot %d: %d of some: %t", q.Network, strings.Replace(q.Address, address, "there", 1), q.Slot, q.Waiting, q.Backlog > 1)
			}
			c.Close()
		case "loglevel":
			var level slog.Level
			level.UnmarshalText([]byte(rest))
			pm.SetLogLevel(level)
			testprog.Print("the manager logs from %v", pm.LogLevel().Level())
		case "note":
			pm.Note("the test", rest)
		}
		cancel()
	}
}

// printState prints the parts of a state that depend on processes.
func printState(now prefork.Snapshot) {
	var exits []string
	for _, s := range now.Slots {
		if s.LastExit != nil {
			exits = append(exits, s.LastExit.String())
		}
	}
	testprog.Print("state: settled %t on %d of %d, %d workers, %d requests, cpu %t, in %s, last exits %s", now.Settled, now.Serving, now.Generation,
		len(now.Workers), now.Requests, now.CPU > 0 || runtime.GOOS != "linux", now.Loop.Call, strings.Join(exits, "; "))
	if now.CPU < lastCPU || now.Requests < lastRequests {
		testprog.Print("a counter has decreased: %v after %v, %d after %d", now.CPU, lastCPU, now.Requests, lastRequests)
	}
	lastCPU, lastRequests = now.CPU, now.Requests
}

var (
	lastCPU      time.Duration
	lastRequests uint64
)

// startOperated starts the program, and returns a function that gives it a
// command.
func startOperated(t *testing.T, args ...string) (p *preforktest.Program, do func(format string, a ...any)) {
	t.Helper()
	p = preforktest.New(t, "operated", args...)
	stdin, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Expect(`^follows from 0, 0 workers, reaper 0$`)
	return p, func(format string, a ...any) {
		t.Helper()
		if _, err := io.WriteString(stdin, fmt.Sprintf(format+"\n", a...)); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that follows a Manager sees its whole life, in order.
func TestFollowProcess(t *testing.T) {
	p, do := startOperated(t)
	p.Expect(`^event 1 StartedEvent: `)
	p.Expect(`^Reload is called$`)
	p.Expect(`^event 2 GenerationEvent: `)
	p.Expect(`^event \d+ StateEvent: worker \d+ .* ready$`)
	p.Expect(`^event \d+ StateEvent: worker \d+ .* ready$`)
	do("ping")
	p.Expect(`^ping: <nil>$`)
	do("note reload")
	p.Expect(`^event \d+ NoteEvent: reload, asked for by the test$`)
	p.Signal(hup)
	p.Expect(`^event \d+ ReloadEvent: reload begins for SIGHUP$`)
	p.Expect(`^Reload is called$`)
	p.Expect(`^event \d+ SignalEvent: SIGHUP received`)
	p.Expect(`^event \d+ RolledEvent: `)
	p.Signal(term)
	p.Expect(`^event \d+ EndedEvent: manager ended$`)
	p.Expect(`^Run returned <nil>$`)
	testprog.ExpectSuccess(t, p)
	last := 0
	for _, line := range p.Lines() {
		var n int
		if _, err := fmt.Sscanf(line, "event %d ", &n); err != nil {
			continue
		}
		if n != last+1 {
			t.Errorf("event %d follows %d", n, last)
		}
		last = n
	}
}

// The state of a Manager has the requests and the CPU time of workers that are gone,
// the last exit of each slot, and whether it is settled.
func TestSnapshotProcess(t *testing.T) {
	p, do := startOperated(t)
	all := p.ExpectAll(`StateEvent: worker (\d+) \(slot 0, generation 1\) ready$`, `^worker 1 serves$`, `^worker 2 serves$`, `^event \d+ SettledEvent: generation 1 has settled$`, `^in a worker: 0 0 0 0 <nil>$`)
	pid, _ := strconv.Atoi(all[0][1])
	do("state")
	p.Expect(`^state: settled true on 1 of 1, 2 workers, 10 requests, cpu true, in Run, last exits $`)
	syscall.Kill(pid, syscall.SIGKILL)
	p.Expect(`ExitEvent: `)
	do("state")
	p.Expect(`^state: settled false on 1 of 1, 1 workers, 10 requests, cpu true, in Run, last exits worker \d+ \(slot 0, generation 1\) crashed: SIGKILL after `)
	p.ExpectAll(`^worker 3 serves$`, `^event \d+ SettledEvent: generation 1 has settled$`)
	do("state")
	p.Expect(`^state: settled true on 1 of 1, 2 workers, 15 requests, `)
	p.Signal(hup)
	p.ExpectAll(`^worker 4 serves$`, `^worker 5 serves$`, `^event \d+ SettledEvent: generation 2 has settled$`)
	do("state")
	p.Expect(`^state: settled true on 2 of 2, \d workers, 25 requests, `)
	p.Signal(term)
	p.Expect(`^event \d+ EndedEvent: manager ended$`)
	testprog.ExpectSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.Contains(line, "has decreased") {
			t.Error(line)
		}
	}
}

// Commands are answered with their outcomes: the generation that is in place, or the
// worker, its exit code and the generation that has failed. A reload that is asked for
// while one is under way reads the configuration again.
func TestCommandsProcess(t *testing.T) {
	p, do := startOperated(t)
	p.Expect(`SettledEvent: generation 1 `)
	do("reload")
	p.Expect(`^reload: 2, <nil>$`)
	do("reload plain")
	p.Expect(`^reload: 3, <nil>$`)
	do("reload staggered")
	p.Expect(`^reload: 4, <nil>$`)
	do("next typo")
	do("reload")
	p.Expect(`^reload: 5, prefork: Reload: reload failed, keeping workers: a typo$`)
	do("next crash")
	do("reload")
	p.Expect(`^reload: 5, prefork: Reload: generation 5 failed, keeping generation 4: worker \d+ \(slot \d\) crashed: exit code 3 after `)
	do("next good")
	do("reload")
	p.Expect(`^reload: 6, <nil>$`)
	do("state")
	p.Expect(`^state: settled true on 6 of 6, `)
	do("next old")
	do("reload")
	p.ExpectAll(`^reload: 7, <nil>$`, `^worker \d+ has the new one$`, `^reload of the new one: 8, <nil>$`)
	do("replace 1")
	p.Expect(`^replace: prefork: ReplaceWorker: prefork: there is no worker with ordinal 1; it may have exited$`)
	do("kill 1")
	p.Expect(`^kill: prefork: there is no worker with ordinal 1; it may have exited$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// One worker is replaced, and another killed, by their ordinals.
func TestWorkerCommandsProcess(t *testing.T) {
	p, do := startOperated(t)
	p.Expect(`SettledEvent: generation 1 `)
	do("kill 2")
	p.ExpectAll(`^kill: <nil>$`, `ExitEvent: worker \d+ \(slot 1, generation 1\) stopped: SIGKILL`, `^worker 3 serves$`, `SettledEvent: generation 1 `)
	do("replace 1")
	p.ExpectAll(`^worker 4 serves$`, `^replace: <nil>$`)
	p.Expect(`ExitEvent: worker \d+ \(slot 0, generation 1\) recycled`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// The queues of the sockets, and the level of the log in the manager, in its workers,
// and in those that start later.
func TestQueuesAndLogLevelProcess(t *testing.T) {
	p, do := startOperated(t)
	p.ExpectAll(`^worker 1 serves$`, `^worker 2 serves$`)
	do("queues")
	want := "1 of some: true"
	if runtime.GOOS != "linux" {
		want = "-1 of some: false"
	}
	p.Expect(`^queue of tcp there, slot -1: ` + want + `$`)
	do("loglevel debug")
	p.ExpectAll(`^the manager logs from DEBUG$`, `^worker 1 logs from DEBUG$`, `^worker 2 logs from DEBUG$`)
	do("kill 1")
	p.Expect(`^worker 3 logs from DEBUG$`)
	do("loglevel info+2")
	p.ExpectAll(`^worker 2 logs from INFO\+2$`, `^worker 3 logs from INFO\+2$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// An upgrade is answered when the successor has taken over.
func TestRequestUpgradeProcess(t *testing.T) {
	p, do := startOperated(t)
	p.Expect(`SettledEvent: generation 1 `)
	do("upgrade")
	pid := p.Expect(`^successor (\d+)$`)[1]
	p.Expect(`^upgrade: ` + pid + `, <nil>$`)
	p.Expect(`^Run returned <nil>$`)
	n, _ := strconv.Atoi(pid)
	syscall.Kill(n, term)
	p.Expect(`^Run returned <nil>$`)
	p.WaitGone()
}
