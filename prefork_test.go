//go:build unix

package prefork_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// The tests start the test binary again as one of these programs.
var programs = map[string]func(){
	"original01": original01, "original02": original02, "original04": original04,
	"original05": original05, "original06": original06, "original07": original07,
}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
)

// T1: 01-base.t. Ten workers increment a counter when they start and in their
// TERM handler. The tenth sends TERM to the manager. In the end the counter is
// 20, and the hook ran ten times.
func original01() {
	reaped := 0
	pm := testprog.NewManager(prefork.Config{OnChildReap: func(*prefork.Manager, prefork.Exit) { reaped++ }})
	count := testprog.Counter(os.Args[1])
	for pm.SignalReceived() == nil {
		if pm.Start() {
			continue
		}
		c := make(chan os.Signal, 1)
		signal.Notify(c, term)
		if count.Add() == 10 {
			testprog.SignalManager(pm.Worker(), term)
		}
		<-c
		count.Add()
		pm.Finish(0)
	}
	pm.WaitAllChildren(context.Background())
	testprog.Print("counter %d reaped %d", count.Value(), reaped)
}

func TestOriginal01Base(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original01", t.TempDir()+"/counter")
		if got := p.Expect(`^counter (\d+) reaped (\d+)$`); got[1] != "20" || got[2] != "10" {
			t.Errorf("%s; want 20 and 10", got[0])
		}
		testprog.ExpectSuccess(t, p)
	})
}

// T2: 02-reconfigure.t. One worker sends HUP in the first generation and TERM
// in the second. The loop runs exactly twice.
func original02() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	loops := 0
	for pm.SignalReceived() != term {
		loops++
		pm.StartFunc(func(w *prefork.Worker) error {
			testprog.SignalManager(w, map[int]syscall.Signal{1: hup, 2: term}[w.Generation()])
			<-w.Context().Done()
			return nil
		})
	}
	pm.WaitAllChildren(context.Background())
	testprog.Print("loops %d", loops)
}

func TestOriginal02Reconfigure(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original02")
		if got := p.Expect(`^loops (\d+)$`); got[1] != "2" {
			t.Errorf("%s; want 2", got[0])
		}
		testprog.ExpectSuccess(t, p)
	})
}

// T4: 04-interval.t. Three workers, one second between two spawns, two between
// two forwarded signals. On slow machines only lower bounds can be tested, so
// the intervals are shorter here. TestOriginal04Interval tests their exact
// length in a bubble.
func original04() {
	const spawn, stop = 100 * time.Millisecond, 200 * time.Millisecond
	var spawned, signalled time.Time // before the interval begins
	stopping := 0
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 3, SpawnInterval: spawn, TrapSignals: prefork.Signals{term: {Signal: term, Interval: stop}},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
			if !spawned.IsZero() && time.Since(spawned) < spawn {
				testprog.Print("too soon: spawn after %v", time.Since(spawned))
			}
			spawned = time.Now()
		},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.SignalEvent:
				signalled = time.Now()
			case prefork.StateEvent:
				if ev.Worker.State != prefork.StateStopping {
					return
				}
				if at := time.Since(signalled); at < time.Duration(stopping)*stop {
					testprog.Print("too soon: signal %d after %v", stopping, at)
				}
				stopping++
			}
		},
	})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			ctx := w.Context()
			testprog.Print("up")
			<-ctx.Done()
			return nil
		})
	}
	testprog.Print("left at once %d", pm.NumWorkers())
	pm.WaitAllChildren(context.Background())
	testprog.Print("left %d", pm.NumWorkers())
}

func TestOriginal04IntervalOfProcesses(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original04")
		p.ExpectN(3, `^up$`)
		p.Signal(term)
		p.Expect(`^left at once 3$`)
		p.Expect(`^left 0$`)
		testprog.ExpectSuccess(t, p)
		for _, line := range p.Lines() {
			if len(line) > 8 && line[:8] == "too soon" {
				t.Error(line)
			}
		}
	})
}

// T5: 05-before_after_fork.t. Three workers exit at once. After ten calls of
// BeforeSpawn the next worker sends TERM. Both hooks ran at least ten times.
func original05() {
	before, after := 0, 0
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 3, ErrRespawnInterval: -1,
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { before++ },
		AfterSpawn: func(_ *prefork.Manager, pid int) {
			if pid > 0 {
				after++
			}
		},
	})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		if w.Ordinal() == 10 {
			testprog.SignalManager(w, term)
		}
		return nil
	})
	testprog.Print("before %d after %d", before, after)
}

func TestOriginal05BeforeAfterSpawn(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original05")
		got := p.Expect(`^before (\d+) after (\d+)$`)
		if len(got[1]) < 2 || len(got[2]) < 2 {
			t.Errorf("%s; want at least 10 of both", got[0])
		}
		testprog.ExpectSuccess(t, p)
	})
}

// T6: 06-wait-all-children-timeout.t. Thirty workers; the k-th exits after
// ceil(k/10) TERMs. Each wait is limited after the exits that are due. The next
// signal is sent after all others have received theirs.
func original06() {
	reaped, enough := 0, func() {}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 30, OnChildReap: func(*prefork.Manager, prefork.Exit) {
		if reaped++; reaped%10 == 0 {
			enough()
		}
	}})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			c := make(chan os.Signal, 1)
			signal.Notify(c, term)
			testprog.Print("up")
			for n := 1; ; n++ {
				<-c
				if n == (w.Ordinal()+9)/10 {
					return nil
				}
				testprog.Print("got")
			}
		})
	}
	lines := bufio.NewScanner(os.Stdin)
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		enough = cancel
		left, _ := pm.WaitAllChildren(ctx)
		testprog.Print("left %d", left)
		lines.Scan() // every other worker has received its signal
		pm.SignalAllChildren(term)
	}
	left, err := pm.WaitAllChildren(context.Background())
	testprog.Print("at last %d %v reaped %d", left, err, reaped)
}

func TestOriginal06WaitTimeoutOfProcesses(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.New(t, "original06")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		p.Cmd.Stdin = r
		p.Start()
		r.Close()
		p.ExpectN(30, `^up$`)
		p.Signal(term)
		for _, left := range []int{20, 10} {
			testprog.ExpectAll(p, map[string]int{"got": left, fmt.Sprint("left ", left): 1})
			fmt.Fprintln(w, "go on")
		}
		p.Expect(`^at last 0 <nil> reaped 30$`)
		testprog.ExpectSuccess(t, p)
	})
}

// T7: 07-wait-all-children-does-not-block.t. Thirty workers exit 0.99 to 1.01 s
// after TERM, around the limit of the wait. The program must end in less than
// five seconds.
func original07() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 30})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			ctx := w.Context()
			testprog.Print("up")
			<-ctx.Done()
			time.Sleep(time.Second + time.Duration(w.Slot()%3-1)*10*time.Millisecond)
			return nil
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	pm.WaitAllChildren(ctx)
	left, err := pm.WaitAllChildren(context.Background())
	testprog.Print("left %d %v in time %t", left, err, time.Since(began) < 5*time.Second)
}

func TestOriginal07WaitDoesNotBlockWithProcesses(t *testing.T) {
	testprog.Repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original07")
		p.ExpectN(30, `^up$`)
		p.Signal(term)
		p.Expect(`^left 0 <nil> in time true$`)
		testprog.ExpectSuccess(t, p)
	})
}
