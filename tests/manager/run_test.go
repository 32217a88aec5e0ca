//go:build unix

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// Run calls Reload before each generation. A signal that replaces no worker is
// forwarded within the generation. Run returns after the shutdown signal, when
// all workers are reaped.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reloads := 0
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: usr1}},
			Reload: func() ([]byte, error) {
				reloads++
				return fmt.Append(nil, "config ", reloads), nil
			}}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		if got := r.passed(1); got != "config 1" {
			t.Errorf("passed %q", got)
		}
		r.Deliver(usr1)
		r.wantSignals(1, usr1)
		if r.Generation() != 1 || reloads != 1 {
			t.Errorf("USR1 began a generation, or reloaded: %d, %d", r.Generation(), reloads)
		}
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.wantSignals(1, usr1, term)
		if got := r.passed(3); got != "config 2" || r.Generation() != 2 {
			t.Errorf("generation %d was passed %q", r.Generation(), got)
		}
		r.Deliver(term)
		if err := <-done; err != nil || r.NumWorkers() != 0 || r.SignalReceived() != term {
			t.Errorf("Run = %v with %d workers left, after %v", err, r.NumWorkers(), r.SignalReceived())
		}
	})
}

// Run ends with its context, and may be called again.
func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, nil)
		for range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			began := time.Now()
			if err := r.Run(ctx, noWork); err != nil || r.NumWorkers() != 0 || time.Since(began) != time.Minute {
				t.Errorf("Run = %v with %d workers left, after %v", err, r.NumWorkers(), time.Since(began))
			}
			cancel()
		}
		if n := len(r.fake.Started()); n != 4 {
			t.Errorf("%d workers were spawned, want 2 in each Run", n)
		}
	})
}

// "If the table sends nothing for ShutdownSignal, Run sends SIGTERM."
func TestRunStopsWithoutTableEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, ShutdownSignal: syscall.SIGQUIT, TrapSignals: prefork.Signals{syscall.SIGQUIT: {}}}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGQUIT)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.wantSignals(1, term)
	})
}

// Run returns an error of the first Reload. A later one is logged, no signal is
// sent and the workers keep running. A respawned worker gets the last good
// data.
func TestRunReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("line 3: no such word")
		var err error
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: hupAndTerm, Reload: func() ([]byte, error) { return []byte("good"), err }}, nil, nil)
		err = broken
		if got := r.Run(context.Background(), noWork); !errors.Is(got, broken) || len(r.fake.Started()) != 0 {
			t.Errorf("Run = %v after %d spawns, want the error of Reload and none", got, len(r.fake.Started()))
		}
		err = nil
		done := r.startRun(context.Background())
		time.Sleep(time.Hour)
		synctest.Wait()
		err = broken
		r.Deliver(hup)
		synctest.Wait()
		r.wantSignals(1)
		if r.Generation() != 1 || r.count("reload failed") != 1 {
			t.Errorf("generation %d; events: %q", r.Generation(), r.eventLog())
		}
		r.process(1).Exit(proc.Status{Code: 1})
		time.Sleep(time.Second)
		if got := r.passed(2); got != "good" {
			t.Errorf("respawned with %q", got)
		}
		r.Deliver(term)
		<-done
	})
}

// Pass applies to the generations that begin after it, until the next call.
func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1, TrapSignals: hupAndTerm}, nil, nil)
		buf := []byte("first")
		r.Pass(buf)
		copy(buf, "XXXXX") // Pass copies the data
		done := r.startLoop()
		time.Sleep(time.Second)
		r.Pass([]byte("second")) // not for the running generation
		r.process(1).Exit(proc.Status{Code: 1})
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		// the second Pass closed the file of the first
		for i, want := range []string{"second", "second"} {
			if got := r.passed(3 + i); got != want {
				t.Errorf("worker %d was passed %q, want %q", 3+i, got, want)
			}
		}
		r.Deliver(term)
		<-done
	})
}

// The first interrupt counts as the shutdown signal, the second kills the
// remaining workers.
func TestSecondInterruptKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, func(*proctest.Process, syscall.Signal) {})
		done := r.startLoop()
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGINT)
		r.wantSignals(1, term)
		if r.SignalReceived() != term {
			t.Errorf("SignalReceived = %v", r.SignalReceived())
		}
		time.Sleep(time.Second)
		r.Deliver(term)
		r.SignalAllChildren(term) // never kills
		r.SignalAllChildren(term)
		r.wantSignals(1, term, term, term, term)
		r.Deliver(syscall.SIGINT)
		<-done
		r.wantSignals(2, term, term, term, term, kill)
		if r.exits[0].Reason != prefork.ReasonStopped {
			t.Errorf("reason: %v", r.exits[0].Reason)
		}
	})
}

// Each change of state is reported once and in order, here for a pool of one
// worker from its start to its end.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: hupAndTerm, StopTimeout: time.Second}, nil, func(p *proctest.Process, sig syscall.Signal) {
			if p.ID == 1 {
				p.Exit(proc.Status{})
			}
		})
		done := r.startLoop()
		time.Sleep(time.Second)
		r.receive(hup)
		time.Sleep(time.Second)
		r.Deliver(term)
		<-done
		want := `manager started
generation 1 of 1 workers begins
worker 1073741825 (slot 0, generation 1) starting
worker 1073741825 (slot 0, generation 1) ready
generation 1 has settled
reload begins for SIGHUP
SIGHUP received, SIGTERM sent to the workers
worker 1073741825 (slot 0, generation 1) stopping
generation 2 of 1 workers begins
worker 1073741825 (slot 0, generation 1) stopped: exit code 0 after 1s
worker 1073741826 (slot 0, generation 2) starting
worker 1073741826 (slot 0, generation 2) ready
generation 2 has settled
SIGTERM delivered, SIGTERM sent to the workers
worker 1073741826 (slot 0, generation 2) stopping
worker 1073741826 (slot 0, generation 2) killed: stop timeout
worker 1073741826 (slot 0, generation 2) stop timeout: SIGKILL after 2s
manager ended`
		if got := strings.Join(r.eventLog(), "\n"); got != want {
			t.Errorf("events:\n%s\nwant:\n%s", got, want)
		}
	})
}

// The zero Config is the original's: 10 workers, TERM forwarded as TERM.
func TestDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spawns []time.Duration
		began := time.Now()
		r := newRig(t, prefork.Config{BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { spawns = append(spawns, time.Since(began)) }},
			nil, ignoreSignals)
		if r.MaxWorkers() != 10 || !slices.Equal(r.traps, []syscall.Signal{term, syscall.SIGINT}) {
			t.Errorf("MaxWorkers %d, signals %v", r.MaxWorkers(), r.traps)
		}
		done := r.startLoop()
		time.Sleep(boot)
		r.wantWorkers("at once", 10)
		if m := markerOf(t, r.process(1)); m.Stop != term || m.Orphan != time.Second {
			t.Errorf("the stop signal of a worker is %v, its OrphanTimeout %v", m.Stop, m.Orphan)
		}
		r.process(1).Exit(proc.Status{Code: 1})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(spawns); n != 11 || spawns[9] != 0 || spawns[10] < 800*time.Millisecond || spawns[10] > 1200*time.Millisecond {
			t.Errorf("spawns after %v; want ten at once and one a second later, ± 20 %%", spawns)
		}
		r.Shutdown()
		r.wantSignals(2, term)
		time.Sleep(30*time.Second - 1)
		r.wantSignals(2, term)
		time.Sleep(time.Nanosecond)
		r.wantSignals(2, term, kill)
		<-done
		if r.SignalReceived() != term {
			t.Errorf("Shutdown is %v", r.SignalReceived())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{}}, nil, nil)
		if len(r.traps) != 0 || markerOf(t, startOne(r)).Stop != term {
			t.Errorf("an empty table traps %v", r.traps)
		}
	})
}

// startOne starts the workers, kills them and returns the first.
func startOne(r *rig) *proctest.Process {
	time.AfterFunc(time.Second, func() { r.Deliver(usr1) })
	r.Start()
	r.SignalAllChildren(kill)
	r.WaitAllChildren(context.Background())
	return r.process(1)
}

// A shutdown signal that arrives during WaitAllChildren reaches the program's
// loop, for example during a full stop between two generations.
func TestD1TermDuringWaitAllChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: hupAndTerm}, nil, func(p *proctest.Process, sig syscall.Signal) {
			time.AfterFunc(10*time.Second, func() { p.Exit(proc.Status{}) })
		})
		loops := 0
		for _, sig := range []syscall.Signal{hup, term, hup} {
			time.AfterFunc(time.Duration(loops+1)*time.Second, func() { r.Deliver(sig) })
			loops++
		}
		for loops = 0; r.SignalReceived() != term; loops++ {
			r.Start()
			r.WaitAllChildren(context.Background())
		}
		if loops != 1 || len(r.fake.Started()) != 1 {
			t.Errorf("%d generations, %d spawns; want 1 of each", loops, len(r.fake.Started()))
		}
	})
}

// If one SIGTERM also ends Run's context (signal.NotifyContext), the workers
// receive it once. A second SIGTERM is forwarded again.
func TestRunContextAndSignalAreOne(t *testing.T) {
	for _, first := range []string{"context", "signal"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, func(*proctest.Process, syscall.Signal) {})
			ctx, cancel := context.WithCancel(context.Background())
			done := r.startRun(ctx)
			time.Sleep(time.Second)
			if first == "context" {
				cancel()
				synctest.Wait()
				r.Deliver(term)
			} else {
				r.Deliver(term)
				synctest.Wait()
				cancel()
			}
			r.wantSignals(1, term)
			r.Deliver(term)
			r.wantSignals(1, term, term)
			r.process(1).Exit(proc.Status{})
			<-done
		})
	}
}

// Run spawns no worker if its context has already ended.
func TestRunWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{}, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Run(ctx, noWork); err != nil || len(r.fake.Started()) != 0 {
			t.Errorf("Run = %v after %d spawns", err, len(r.fake.Started()))
		}
	})
}

// The end of Run's context does not end a later Start.
func TestRunLeavesNothingOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Run(ctx, noWork); err != nil {
			t.Error(err)
		}
		r.wantNextStartRuns()
	})
}

// wantNextStartRuns fails the test if a pending signal ends the next Start.
func (r *rig) wantNextStartRuns() {
	r.t.Helper()
	before := len(r.fake.Started())
	began := time.Now()
	time.AfterFunc(time.Minute, func() { r.Deliver(term) })
	r.Start()
	if took := time.Since(began); took != time.Minute || len(r.fake.Started()) == before {
		r.t.Errorf("Start returned after %v with %v", took, r.SignalReceived())
	}
	r.WaitAllChildren(context.Background())
}
