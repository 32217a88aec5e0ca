//go:build unix

package manager_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

var rollingHup = prefork.Signals{term: {Signal: term}, hup: {Rolling: true}}

// genOf returns the generation of the i-th worker; zero means that it is gone.
func (r *rig) genOf(i int) int {
	for _, w := range r.Snapshot().Workers {
		if w.Ordinal == i {
			return w.Generation
		}
	}
	return 0
}

// Each worker is stopped only after its replacement is ready. The replacement
// gets the data that was passed to its generation.
func TestRolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reloads := 0
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Reload: func() ([]byte, error) {
			reloads++
			return []byte("config " + strconv.Itoa(reloads)), nil
		}}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.Deliver(hup)
		synctest.Wait()
		r.wantWorkers("while the first replacement starts", 3)
		r.wantSignals(1)
		time.Sleep(boot)
		r.wantSignals(1, term)
		r.wantSignals(2)
		time.Sleep(boot)
		r.wantSignals(2, term)
		r.wantWorkers("at the end", 2)
		if got := r.passed(4); got != "config 2" || r.genOf(4) != 2 {
			t.Errorf("generation %d was passed %q", r.genOf(4), got)
		}
		time.Sleep(6 * time.Second) // the generation can fail for five seconds
		synctest.Wait()
		if r.keepsPassed(1) || !r.keepsPassed(4) {
			t.Errorf("the data of generation 1 is kept: %v, that of 2: %v", r.keepsPassed(1), r.keepsPassed(4))
		}
		if n := r.count("all workers are of generation 2"); n != 1 {
			t.Errorf("events: %q", r.eventLog())
		}
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// If a generation fails, respawned workers belong to the generation before it
// and get its data. This holds after a later generation has begun,
// too.
func TestRollFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := false
		var failed []prefork.RollFailedEvent
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.RollFailedEvent); ok {
				failed = append(failed, ev)
			}
		}}, func(p *proctest.Process) {
			if bad {
				time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 3}) })
				return
			}
			reachStart(p)
		}, nil)
		r.Pass([]byte("good"))
		done := r.startLoop()
		time.Sleep(time.Minute)
		synctest.Wait()
		bad = true
		r.Pass([]byte("bad"))
		r.Deliver(hup)
		time.Sleep(time.Minute)
		synctest.Wait()
		bad = false
		if n := len(r.fake.Started()); n != 3 {
			t.Errorf("%d workers were spawned, want 3", n)
		}
		if len(failed) != 1 || failed[0].Generation != 2 || failed[0].Kept != 1 || !strings.Contains(failed[0].String(), "exit code 3") {
			t.Errorf("failed: %v", failed)
		}
		r.process(1).Exit(proc.Status{Code: 1})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.passed(4); got != "good" || r.genOf(4) != 1 {
			t.Errorf("respawned in generation %d with %q", r.genOf(4), got)
		}
		r.Pass([]byte("better"))
		r.Deliver(hup)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.passed(6); got != "better" || r.genOf(6) != 3 {
			t.Errorf("generation %d was passed %q", r.genOf(6), got)
		}
		time.Sleep(6 * time.Second) // the generation can fail for five seconds
		synctest.Wait()
		for i, want := range []bool{false, false, false, false, true, true} {
			if got := r.keepsPassed(i + 1); got != want {
				t.Errorf("the data of worker %d is kept: %v, want %v", i+1, got, want)
			}
		}
		r.Deliver(term)
		<-done
	})
}

// A failed spawn fails the new generation, too. The event has its error.
func TestRollSpawnFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed error
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.RollFailedEvent); ok {
				failed = ev.Err
			}
		}}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.fake.FailNext(1, syscall.EAGAIN)
		r.Deliver(hup)
		time.Sleep(time.Second)
		synctest.Wait()
		var spawn *prefork.SpawnError
		if !errors.Is(failed, syscall.EAGAIN) || !errors.As(failed, &spawn) || spawn.Generation != 2 {
			t.Errorf("failed because of %v", failed)
		}
		r.wantSignals(1)
		r.wantSignals(2)
		r.Deliver(term)
		<-done
	})
}

// The signal of a rolling entry stops the workers that are replaced. All others
// get the stop signal.
func TestRollingBySignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, MaxSurge: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: syscall.SIGQUIT, Rolling: true}}}, nil,
			func(p *proctest.Process, sig syscall.Signal) {
				if sig == term || sig == syscall.SIGQUIT {
					p.Exit(proc.Status{})
				}
			})
		done := r.startLoop()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.Deliver(hup)
		time.Sleep(time.Second)
		synctest.Wait()
		r.wantSignals(1, syscall.SIGQUIT)
		r.Deliver(term)
		<-done
		r.wantSignals(2, term)
		if e := r.exits[0]; e.Reason != prefork.ReasonStopped {
			t.Errorf("the replaced worker: %v", e)
		}
	})
}

func TestRollingConfig(t *testing.T) {
	for _, cfg := range []prefork.Config{
		{TrapSignals: prefork.Signals{hup: {Rolling: true, Interval: time.Second}}},
		{TrapSignals: prefork.Signals{term: {Rolling: true}}},
		{MaxSurge: -1},
	} {
		var bad *prefork.ConfigError
		if _, err := prefork.New(cfg); !errors.As(err, &bad) || !slices.Contains([]string{"TrapSignals", "MaxSurge"}, bad.Field) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// The stop signal reaches a suspended worker: SIGCONT follows it.
func TestContinueFollowsStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, func(p *proctest.Process, sig syscall.Signal) {
			if sig == syscall.SIGCONT {
				p.Exit(proc.Status{})
			}
		})
		done := r.startLoop()
		time.Sleep(time.Second)
		synctest.Wait()
		r.Deliver(term)
		<-done
		if got := r.process(1).Signals(); !slices.Equal(got, []syscall.Signal{term, syscall.SIGCONT}) {
			t.Errorf("the worker received %v", got)
		}
	})
}
