//go:build unix

package process_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
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
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Reload: func() ([]byte, error) { testprog.Print("Reload is called"); return nil, nil },
	})
	if !prefork.IsWorker() {
		now, _ := pm.Follow(func(rec prefork.Record) {
			testprog.Print("event %d %s: %v", rec.Seq, strings.TrimPrefix(fmt.Sprintf("%T", rec.Event), "prefork."), rec.Event)
		})
		testprog.Print("follows from %d, %d workers, reaper %d", now.Seq, len(now.Workers), prefork.ReaperPID())
		go operate(pm)
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.Served(5)
		testprog.Print("worker %d serves", w.Ordinal())
		<-w.Context().Done()
		return nil
	})
	testprog.Print("Run returned %v", err)
}

// operate carries out the commands in standard input, one a line.
func operate(pm *prefork.Manager) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		switch command {
		case "ping":
			testprog.Print("ping: %v", pm.Ping(ctx))
		case "state":
			printState(pm.Snapshot())
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
	all := p.ExpectAll(`StateEvent: worker (\d+) \(slot 0, generation 1\) ready$`, `^worker 1 serves$`, `^worker 2 serves$`, `^event \d+ SettledEvent: generation 1 has settled$`)
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
