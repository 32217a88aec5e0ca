//go:build unix

package process_test

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
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("run", runProgram)
	preforktest.Register("ctrlc", ctrlC)
	preforktest.Register("orphans", orphans)
	preforktest.Register("idle", idle)
	preforktest.Register("respawn", respawn)
	preforktest.Register("hello", hello)
}

const diesWithParent = runtime.GOOS == "linux" || runtime.GOOS == "freebsd"

// orphans is a manager of many workers, which react to the manager's death as
// the argument selects.
func orphans() {
	n, _ := strconv.Atoi(os.Args[2])
	pm := testprog.NewManager(prefork.Config{MaxWorkers: n, OrphanTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		switch os.Args[1] {
		case "watch Context":
			ctx := w.Context()
			testprog.Print("up")
			<-ctx.Done()
			if got := context.Cause(ctx).Error(); got != "prefork: the manager is gone" {
				testprog.Print("wrong: %s", got)
			}
			return nil
		case "ignore":
			w.Context()
			signal.Ignore(hup, syscall.SIGINT, term, syscall.SIGQUIT)
			testprog.Print("up")
			select {}
		}
		testprog.Print("up") // "one that never called Context is ended at once"
		select {}
	})
}

// orphanWorkers returns how many workers lose their manager in each run.
func orphanWorkers() int {
	if testprog.Long() {
		return 50
	}
	return 10
}

// D14: SIGKILL of a manager with 50 workers. Workers that watch Context are
// gone after a median of at most 100 ms. Workers that ignore every signal and
// Context are gone after OrphanTimeout plus 0.5 s, and workers that never
// called Context at once.
func TestD14DeathOfTheManager(t *testing.T) {
	workers := orphanWorkers()
	for _, tt := range []struct {
		how   string
		limit time.Duration
	}{{"watch Context", 100 * time.Millisecond}, {"never ask", 100 * time.Millisecond}, {"ignore", 800 * time.Millisecond}} {
		t.Run(tt.how, func(t *testing.T) {
			var took []time.Duration
			for range testprog.Times(100) {
				p := preforktest.Start(t, "orphans", tt.how, strconv.Itoa(workers))
				p.ExpectN(workers, `^up$`)
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
			t.Logf("%d runs, %d workers: all gone after a median of %v, at most %v", len(took), workers, median.Round(time.Millisecond), worst.Round(time.Millisecond))
			// On a machine that runs other tests, and with the race detector,
			// only the order of magnitude counts.
			limit := 10 * tt.limit
			if testprog.Long() {
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

// The manager is killed while its workers start. Every worker notices, however
// early that is.
func TestDeathWhileWorkersStart(t *testing.T) {
	workers := orphanWorkers()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range testprog.Times(300) {
		p := preforktest.Start(t, "orphans", []string{"watch Context", "never ask", "ignore"}[i%3], strconv.Itoa(workers))
		// 0 is before or during the start of the manager itself.
		p.ExpectN(r.IntN(workers*4/5), `^up$`)
		for spin := r.IntN(1 << 20); spin > 0; spin-- {
		}
		p.Kill()
		p.WaitGone()
	}
}

// runProgram is a program around Run. Its table names neither ShutdownSignal
// nor SIGINT.
func runProgram() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{hup: {Signal: term}}})
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("up")
		<-ctx.Done()
		testprog.Print("cause: %v", context.Cause(ctx))
		return nil
	})
	testprog.Print("Run: %v after %v", err, pm.SignalReceived())
}

// "Run traps the table, ShutdownSignal and SIGINT … If the table sends nothing
// for ShutdownSignal, Run sends SIGTERM."
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
		testprog.ExpectSuccess(t, p)
	}
}

// ctrlC is a program with a loop around StartFunc. Its argument selects the
// table.
func ctrlC() {
	table := prefork.Signals{term: {Signal: term}}
	if os.Args[1] == "without" {
		table = prefork.Signals{hup: {Signal: term}}
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: table})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			if os.Args[1] == "stubborn" {
				signal.Ignore(term)
			}
			testprog.Print("up")
			if os.Args[1] == "stubborn" {
				select {}
			}
			<-w.Context().Done()
			return nil
		})
		testprog.Print("received %v", pm.SignalReceived())
	}
	left, err := pm.WaitAllChildren(context.Background())
	testprog.Print("left %d %v", left, err)
}

// "Start, StartFunc trap the table alone (and SIGINT, as said at
// ShutdownSignal, unless it was ignored when the program started)."
func TestInterrupt(t *testing.T) {
	t.Run("counts as the shutdown signal", func(t *testing.T) {
		p := preforktest.Start(t, "ctrlc", "plain")
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`^received terminated$`)
		p.Expect(`^left 0 <nil>$`)
		testprog.ExpectSuccess(t, p)
	})
	t.Run("a second one kills", func(t *testing.T) {
		p := preforktest.Start(t, "ctrlc", "stubborn")
		p.Expect(`^up$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`^received terminated$`)
		p.Signal(syscall.SIGINT)
		p.Expect(`signal received signal=SIGINT forward=SIGKILL`)
		p.Expect(`worker gone.*reason=stopped status=SIGKILL`)
		p.Expect(`^left 0 <nil>$`)
		testprog.ExpectSuccess(t, p)
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
		testprog.ExpectSuccess(t, p)
		if log := strings.Join(p.Lines(), "\n"); strings.Contains(log, "signal=SIGINT") {
			t.Errorf("the interrupt was not ignored:\n%s", log)
		}
	})
}

// idle is a manager of idle workers.
func idle() {
	n, _ := strconv.Atoi(os.Args[1])
	pm := testprog.NewManager(prefork.Config{MaxWorkers: n, Logger: slog.New(slog.DiscardHandler)})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("up %d", os.Getpid())
		<-ctx.Done()
		return nil
	})
}

// A manager with 500 idle workers has at most 16 threads. Neither it nor a
// worker is scheduled over 10 s, beyond noise. The test logs the manager's
// private memory per worker.
func TestIdleManager(t *testing.T) {
	if _, err := preforktest.Threads(os.Getpid()); err != nil {
		preforktest.Skipf(t, "threads cannot be counted here: %v", err)
	}
	n := testprog.Times(500)
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
	time.Sleep(time.Second) // let the start settle; nothing may happen from here on
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
		// One switch a second would be polling. The runtime's two-minute timer
		// and a late page fault are noise.
		if d := after[i] - before[i]; d > 5 {
			t.Errorf("process %d switched %d times in 10 s", watched[i], d)
		}
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

func differences(before, after []int64) string {
	var parts []string
	for i := range before {
		parts = append(parts, fmt.Sprint(after[i]-before[i]))
	}
	return strings.Join(parts, " ")
}

// hello is the lower bound of a respawn: the main of a worker without the
// library.
func hello() {
	testprog.Print("main")
	for { // without cgo, select would be a deadlock
		time.Sleep(time.Hour)
	}
}

// respawn is a manager whose workers report when they are in main.
func respawn() {
	if prefork.IsWorker() {
		testprog.Print("main %d", os.Getpid())
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1, Logger: slog.New(slog.DiscardHandler)})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		testprog.Print("start %d", os.Getpid())
		<-w.Context().Done()
		return nil
	})
}
