//go:build unix

package prefork_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

const (
	diesWithParent  = runtime.GOOS == "linux" || runtime.GOOS == "freebsd"
	abstractSockets = runtime.GOOS == "linux"
)

// orphans is a manager of many workers, which heed the manager's death, or nothing at all.
func orphans() {
	n, _ := strconv.Atoi(os.Args[2])
	pm := must(prefork.Config{MaxWorkers: n, OrphanTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	untilTerm(pm, func(w *prefork.Worker) error {
		switch os.Args[1] {
		case "heed":
			ctx := w.Context()
			say("up")
			<-ctx.Done()
			if got := context.Cause(ctx).Error(); got != "prefork: the manager is gone" {
				say("wrong: %s", got)
			}
			return nil
		case "ignore":
			w.Context()
			signal.Ignore(hup, syscall.SIGINT, term, syscall.SIGQUIT)
			say("up")
			select {}
		}
		say("up") // "one that never called Context is ended at once"
		select {}
	})
}

// D14: SIGKILL of a manager with 50 workers. Those that heed Context are gone in a median of at most
// 100 ms; those that ignore every signal and Context by OrphanTimeout plus 0.5 s; those that never called Context at once.
func TestD14DeathOfTheManager(t *testing.T) {
	for _, tt := range []struct {
		how   string
		limit time.Duration
	}{{"heed", 100 * time.Millisecond}, {"never ask", 100 * time.Millisecond}, {"ignore", 800 * time.Millisecond}} {
		t.Run(tt.how, func(t *testing.T) {
			var took []time.Duration
			for range times(100) {
				p := preforktest.Start(t, "orphans", tt.how, "50")
				p.ExpectN(50, `^up$`)
				began := time.Now()
				p.Kill()
				took = append(took, p.WaitGone().Sub(began))
				for _, line := range p.Lines() {
					if strings.HasPrefix(line, "wrong") {
						t.Error(line)
					}
				}
			}
			slices.Sort(took)
			median, worst := took[len(took)/2], took[len(took)-1]
			t.Logf("%d runs, 50 workers: all gone after a median of %v, at most %v", len(took), median.Round(time.Millisecond), worst.Round(time.Millisecond))
			// On a machine that is busy with other tests, and with the race detector, only the order of magnitude counts.
			limit := 10 * tt.limit
			if *long {
				limit = tt.limit
			}
			if median > limit {
				t.Errorf("median %v, want at most %v", median, limit)
			}
			if tt.how == "ignore" && took[0] < 300*time.Millisecond {
				t.Errorf("a worker was ended after %v, before OrphanTimeout", took[0])
			}
		})
	}
}

// The manager is killed while its workers start: no moment is so early that a worker does not notice.
func TestDeathWhileWorkersStart(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range times(300) {
		p := preforktest.Start(t, "orphans", []string{"heed", "never ask", "ignore"}[i%3], "50")
		p.ExpectN(r.IntN(40), `^up$`) // 0 is before, or while, the manager itself starts
		for spin := r.IntN(1 << 20); spin > 0; spin-- {
		}
		p.Kill()
		p.WaitGone()
	}
}

// runProgram is a program around Run whose table does not name what Run traps besides.
func runProgram() {
	pm := must(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{hup: {Signal: term}}})
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		say("up")
		<-ctx.Done()
		say("cause: %v", context.Cause(ctx))
		return nil
	})
	say("Run: %v after %v", err, pm.SignalReceived())
}

// "Run traps the table, ShutdownSignal and SIGINT … If the table sends nothing for ShutdownSignal, Run sends SIGTERM."
func TestRunTraps(t *testing.T) {
	for _, sig := range []syscall.Signal{term, syscall.SIGINT} {
		p := preforktest.Start(t, "run")
		p.Expect(`^up$`)
		p.Signal(hup)
		p.Expect(`^cause: prefork: stopped by SIGTERM$`)
		p.Expect(`^up$`)
		p.Signal(sig)
		p.Expect(`^cause: prefork: stopped by SIGTERM$`)
		p.Expect(`^Run: <nil> after terminated$`)
		wantSuccess(t, p)
	}
}

// ctrlC is a program in the form of a loop, whose table the argument chooses.
func ctrlC() {
	table := prefork.Signals{term: {Signal: term}}
	if os.Args[1] == "without" {
		table = prefork.Signals{hup: {Signal: term}}
	}
	pm := must(prefork.Config{MaxWorkers: 1, TrapSignals: table})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			if os.Args[1] == "stubborn" {
				signal.Ignore(term)
			}
			say("up")
			if os.Args[1] == "stubborn" {
				select {}
			}
			<-w.Context().Done()
			return nil
		})
		say("received %v", pm.SignalReceived())
	}
	left, err := pm.WaitAllChildren(context.Background())
	say("left %d %v", left, err)
}

// "Start, StartFunc trap the table alone (and SIGINT, as said at ShutdownSignal, unless it was ignored when the program
// started)."
func TestInterrupt(t *testing.T) {
	t.Run("counts as the shutdown signal", func(t *testing.T) {
		p := preforktest.Start(t, "ctrlc", "plain")
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`^received terminated$`)
		p.Expect(`^left 0 <nil>$`)
		wantSuccess(t, p)
	})
	t.Run("a second one kills", func(t *testing.T) {
		p := preforktest.Start(t, "ctrlc", "stubborn")
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`^received terminated$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`signal received signal=SIGINT forward=SIGKILL`)
		p.Expect(`worker gone.*reason="stop timeout" status=SIGKILL`)
		p.Expect(`^left 0 <nil>$`)
		wantSuccess(t, p)
	})
	t.Run("is not trapped where the table does not name the shutdown signal", func(t *testing.T) {
		p := preforktest.Start(t, "ctrlc", "without")
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		if ws, ok := p.Wait().Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGINT {
			t.Errorf("the program ended with %v, want SIGINT", p.Cmd.ProcessState)
		}
		p.WaitGone()
	})
	t.Run("stays ignored where it was", func(t *testing.T) {
		p := preforktest.New(t, "ctrlc", "plain")
		p.Cmd.Args = append([]string{"sh", "-c", `trap '' INT; exec "$0" "$@"`, p.Cmd.Path}, p.Cmd.Args[1:]...)
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		p.Cmd.Path = sh
		p.Start()
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		p.Signal(term)
		p.Expect(`^received terminated$`)
		wantSuccess(t, p)
		if log := strings.Join(p.Lines(), "\n"); strings.Contains(log, "signal=SIGINT") {
			t.Errorf("the interrupt was heeded:\n%s", log)
		}
	})
}

// storm is a program that is signalled at random moments.
func storm() {
	pm := must(prefork.Config{MaxWorkers: 3, ErrRespawnInterval: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), TrapSignals: prefork.Signals{
		term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: term, Interval: time.Millisecond},
	}})
	for pm.SignalReceived() != term {
		if !prefork.IsWorker() {
			say("pass")
		}
		pm.StartFunc(func(w *prefork.Worker) error {
			<-w.Context().Done()
			return nil
		})
	}
	left, err := pm.WaitAllChildren(context.Background())
	say("left %d %v", left, err)
}

// A thousand signals as fast as possible, HUP and TERM mixed, at random moments of start-up, running, reload and shutdown:
// TERM always ends the program with all workers reaped. The seed is printed.
func TestStormOfSignals(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range times(200) {
		p := preforktest.Start(t, "storm")
		p.Expect(`^pass$`) // the table is trapped; from here on any moment will do
		for spin := r.IntN(1 << 18); spin > 0; spin-- {
		}
		terms := 0
		lastTerm := r.IntN(1000)
		for i := range 1000 {
			sig := []syscall.Signal{hup, usr1, hup}[r.IntN(3)]
			if i == lastTerm || i > lastTerm && r.IntN(50) == 0 {
				sig = term
				terms++
			}
			if p.Cmd.Process.Signal(sig) != nil {
				break // it has ended
			}
		}
		p.Expect(`^left 0 <nil>$`)
		if ws, ok := p.Wait().Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			t.Errorf("after %d TERMs the program ended with %v", terms, p.Cmd.ProcessState)
		}
		p.WaitGone()
	}
}

// idle is a manager of workers that do nothing.
func idle() {
	n, _ := strconv.Atoi(os.Args[1])
	pm := must(prefork.Config{MaxWorkers: n, Logger: slog.New(slog.DiscardHandler)})
	untilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		say("up %d", os.Getpid())
		<-ctx.Done()
		return nil
	})
}

// A manager with 500 idle workers: at most 16 threads, no context switches of the manager or of a worker over 10 s beyond
// noise; private memory of the manager per worker printed.
func TestIdleManager(t *testing.T) {
	if _, err := preforktest.Threads(os.Getpid()); err != nil {
		t.Skipf("threads cannot be counted here: %v", err)
	}
	n := times(500)
	memory := func(p *preforktest.Program) int64 {
		bytes, err := preforktest.PrivateMemory(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	few := preforktest.Start(t, "idle", "1")
	few.Expect(`^up`)
	base := memory(few)
	few.Signal(term)

	p := preforktest.Start(t, "idle", strconv.Itoa(n))
	var watched []int
	for _, up := range p.ExpectN(n, `^up (\d+)$`) {
		pid, _ := strconv.Atoi(up[1])
		watched = append(watched, pid)
	}
	watched = append(watched[:5:5], p.PID())
	time.Sleep(time.Second) // let the start die down; from here on nothing may happen
	before := switchesOf(t, watched)
	time.Sleep(10 * time.Second)
	after := switchesOf(t, watched)
	threads, err := preforktest.Threads(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	perWorker := (memory(p) - base) / int64(n)
	t.Logf("%d idle workers: %d threads of the manager, private memory %d bytes a worker; context switches in 10 s: %s", n, threads, perWorker, differences(before, after))
	if threads > 16 {
		t.Errorf("the manager has %d threads, want at most 16", threads)
	}
	for i := range watched {
		// One a second would be a poll; the runtime's own two-minute timer and a late page fault are noise.
		if d := after[i] - before[i]; d > 5 {
			t.Errorf("process %d switched %d times in 10 s", watched[i], d)
		}
	}
	p.Signal(term)
	wantSuccess(t, p)
}

func differences(before, after []int64) string {
	var parts []string
	for i := range before {
		parts = append(parts, fmt.Sprint(after[i]-before[i]))
	}
	return strings.Join(parts, " ")
}

// hello is the floor for respawn: what a worker's main does, with nothing before it.
func hello() {
	say("main")
	for { // select would be a deadlock here without cgo
		time.Sleep(time.Hour)
	}
}

// respawn is a manager whose workers tell when they are in main.
func respawn() {
	if prefork.IsWorker() {
		say("main %d", os.Getpid())
	}
	pm := must(prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1, Logger: slog.New(slog.DiscardHandler)})
	untilTerm(pm, func(w *prefork.Worker) error {
		say("start %d", os.Getpid())
		<-w.Context().Done()
		return nil
	})
}
