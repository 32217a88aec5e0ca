//go:build unix

package prefork

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
)

func noWork(*Worker) error { return nil }

// startRun calls Run in a goroutine; its error comes on the channel.
func (r *rig) startRun(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, noWork) }()
	return done
}

// passed is what the i-th worker was handed.
func (r *rig) passed(i int) string {
	r.t.Helper()
	spec := r.process(i).Spec
	for _, kv := range spec.Env {
		if value, ok := strings.CutPrefix(kv, inherit.Env+"="); ok {
			m, err := inherit.Parse(value)
			if err != nil {
				r.t.Fatal(err)
			}
			if m.Passed == 0 {
				return "(nothing)"
			}
			data, err := inherit.ReadBlob(int(spec.Files[m.Passed]))
			if err != nil {
				r.t.Fatal(err)
			}
			return string(data)
		}
	}
	r.t.Fatalf("worker %d has no marker", i)
	return ""
}

// Run calls Reload before each generation, forwards what replaces nobody within the generation, and ends with the
// shutdown signal when all are reaped.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reloads := 0
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: usr1}},
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

// "… or the end of ctx"; and a Run may follow a Run.
func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, nil, nil)
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
func TestRunStopsAlsoWhereTheTableSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1, ShutdownSignal: syscall.SIGQUIT, TrapSignals: Signals{syscall.SIGQUIT: {}}}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGQUIT)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.wantSignals(1, term)
	})
}

// "An error before the first generation is returned; later it is logged, nothing is signalled and the workers go on", and
// one that is spawned later gets the last good bytes.
func TestRunReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("line 3: no such word")
		var err error
		r := newRig(t, Config{MaxWorkers: 1, TrapSignals: hupAndTerm, Reload: func() ([]byte, error) { return []byte("good"), err }}, nil, nil)
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

// Pass is in force for the generations that begin after it, until it is called again.
func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1, ErrRespawnInterval: -1, TrapSignals: hupAndTerm}, nil, nil)
		buf := []byte("first")
		r.Pass(buf)
		copy(buf, "XXXXX") // the data was copied
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Pass([]byte("second")) // not for the generation that runs
		r.process(1).Exit(proc.Status{Code: 1})
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		for i, want := range []string{"second", "second"} { // the file of the first was closed when the second came
			if got := r.passed(3 + i); got != want {
				t.Errorf("worker %d was passed %q, want %q", 3+i, got, want)
			}
		}
		r.Deliver(term)
		<-done
	})
}

// The first interrupt counts as the shutdown signal, the second kills what is left.
func TestSecondInterruptKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, nil, func(*proc.FakeProcess, syscall.Signal) {})
		r.interrupts.Store(1) // as trapInterrupt does; the real thing is in TestInterrupt
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGINT)
		r.wantSignals(1, term)
		if r.SignalReceived() != term {
			t.Errorf("SignalReceived = %v", r.SignalReceived())
		}
		time.Sleep(time.Second)
		r.Deliver(term)
		r.SignalAllChildren(term) // never escalates
		r.SignalAllChildren(term)
		r.wantSignals(1, term, term, term, term)
		r.Deliver(syscall.SIGINT)
		<-done
		r.wantSignals(2, term, term, term, term, kill)
		if r.exits[0].Reason != ReasonStopTimeout {
			t.Errorf("reason: %v", r.exits[0].Reason)
		}
	})
}

// Every change of state comes once and in order; this is the whole life of a pool of one worker.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1, TrapSignals: hupAndTerm, StopTimeout: time.Second}, nil, func(p *proc.FakeProcess, sig syscall.Signal) {
			if p.ID == 1 {
				p.Exit(proc.Status{})
			}
		})
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.Deliver(term)
		<-done
		want := `generation 1 of 1 workers begins
worker 1073741825 (slot 0, generation 1) starting
worker 1073741825 (slot 0, generation 1) ready
SIGHUP received, SIGTERM sent to the workers
worker 1073741825 (slot 0, generation 1) stopping
generation 2 of 1 workers begins
worker 1073741825 (slot 0, generation 1) stopped: exit code 0 after 1s
worker 1073741826 (slot 0, generation 2) starting
worker 1073741826 (slot 0, generation 2) ready
SIGTERM received, SIGTERM sent to the workers
worker 1073741826 (slot 0, generation 2) stopping
worker 1073741826 (slot 0, generation 2) killed: stop timeout
worker 1073741826 (slot 0, generation 2) stop timeout: SIGKILL after 2s`
		if got := strings.Join(r.eventLog(), "\n"); got != want {
			t.Errorf("events:\n%s\nwant:\n%s", got, want)
		}
	})
}

// The zero Config is the original's: 10 workers, TERM forwarded as TERM.
func TestDefaults(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.MaxWorkers != 10 || cfg.SpawnInterval != 0 || cfg.ErrRespawnInterval != time.Second || cfg.StopTimeout != 30*time.Second ||
		cfg.OrphanTimeout != time.Second || cfg.ShutdownSignal != term || cfg.stopSignal() != term ||
		len(cfg.TrapSignals) != 1 || cfg.TrapSignals[term] != (Forward{Signal: term}) || cfg.Logger == nil {
		t.Errorf("defaults: %+v", cfg)
	}
	if cfg, err := (Config{TrapSignals: Signals{}}).withDefaults(); err != nil || len(cfg.TrapSignals) != 0 || cfg.stopSignal() != term {
		t.Errorf("an empty table: %+v, %v", cfg.TrapSignals, err)
	}
}

// A shutdown that comes while the program waits, for a full stop between two generations say, is not lost to its loop.
func TestD1TermDuringWaitAllChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1, TrapSignals: hupAndTerm}, nil, func(p *proc.FakeProcess, sig syscall.Signal) {
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

// One TERM that also ends Run's context (signal.NotifyContext) reaches the workers once; a second one does so again.
func TestRunContextAndSignalAreOne(t *testing.T) {
	for _, first := range []string{"context", "signal"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{MaxWorkers: 1}, nil, func(*proc.FakeProcess, syscall.Signal) {})
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

// A Run whose context is at its end already spawns nobody.
func TestRunWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Run(ctx, noWork); err != nil || len(r.fake.Started()) != 0 {
			t.Errorf("Run = %v after %d spawns", err, len(r.fake.Started()))
		}
	})
}

// What Run's context said is over when Run is: it ends no later Start.
func TestRunLeavesNothingOfItsContext(t *testing.T) {
	r := newRig(t, Config{}, nil, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.stopWith(ctx)()
	if a, ok := r.takeSignal(); ok {
		t.Errorf("%v waits for the next Start", a)
	}
}
