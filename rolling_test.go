//go:build unix

package prefork

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

	"github.com/prefork-go/prefork/internal/proc"
)

var rollingHup = Signals{term: {Signal: term}, hup: {Rolling: true}}

// genOf is the generation of the i-th worker.
func (r *rig) genOf(i int) int {
	for _, w := range r.Snapshot().Workers {
		if w.Ordinal == i {
			return w.Generation
		}
	}
	return 0
}

// Each worker is told to stop only when its replacement is ready, and gets what was passed to its generation.
func TestRolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: rollingHup}, nil, nil)
		reloads := 0
		r.cfg.Reload = func() ([]byte, error) { reloads++; return []byte("config " + strconv.Itoa(reloads)), nil }
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
		if n := r.count("all workers are of generation 2"); n != 1 {
			t.Errorf("events: %q", r.eventLog())
		}
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A generation that fails is given up, and what is spawned from then on gets what the one before it was passed; also
// when a later generation begins that replaces nobody.
func TestRollingGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := false
		var failed []RollFailedEvent
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: rollingHup, Observe: func(ev Event) {
			if ev, ok := ev.(RollFailedEvent); ok {
				failed = append(failed, ev)
			}
		}}, func(p *proc.FakeProcess) {
			if bad {
				time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 3}) })
				return
			}
			reachStart(p)
		}, nil)
		r.Pass([]byte("good"))
		done := r.startAgain()
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
			t.Errorf("given up: %v", failed)
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
		time.Sleep(2 * time.Second) // it can be given up for a second
		synctest.Wait()
		if n := len(r.generations); n != 1 {
			t.Errorf("%d generations are remembered, want 1", n)
		}
		r.Deliver(term)
		<-done
	})
}

// A worker of the new generation that cannot be spawned gives it up, too, with the error that tells why.
func TestRollingNotSpawned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed error
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: rollingHup, Observe: func(ev Event) {
			if ev, ok := ev.(RollFailedEvent); ok {
				failed = ev.Err
			}
		}}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.fake.FailNext(1, syscall.EAGAIN)
		r.Deliver(hup)
		time.Sleep(time.Second)
		synctest.Wait()
		var spawn *SpawnError
		if !errors.Is(failed, syscall.EAGAIN) || !errors.As(failed, &spawn) || spawn.Generation != 2 {
			t.Errorf("given up because of %v", failed)
		}
		r.wantSignals(1)
		r.wantSignals(2)
		r.Deliver(term)
		<-done
	})
}

// The signal that the table names takes the stop signal's place for those that are replaced; the others get the stop signal.
func TestRollingBySignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1, MaxSurge: 2, TrapSignals: Signals{term: {Signal: term}, hup: {Signal: syscall.SIGQUIT, Rolling: true}}}, nil,
			func(p *proc.FakeProcess, sig syscall.Signal) {
				if sig == term || sig == syscall.SIGQUIT {
					p.Exit(proc.Status{})
				}
			})
		done := r.startAgain()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.Deliver(hup)
		time.Sleep(time.Second)
		synctest.Wait()
		r.wantSignals(1, syscall.SIGQUIT)
		r.Deliver(term)
		<-done
		r.wantSignals(2, term)
		if e := r.exits[0]; e.Reason != ReasonStopped {
			t.Errorf("the replaced worker: %v", e)
		}
	})
}

func TestRollingConfig(t *testing.T) {
	for _, cfg := range []Config{
		{TrapSignals: Signals{hup: {Rolling: true, Interval: time.Second}}},
		{TrapSignals: Signals{term: {Rolling: true}}},
		{MaxSurge: -1},
	} {
		var bad *ConfigError
		if _, err := cfg.withDefaults(); !errors.As(err, &bad) || !slices.Contains([]string{"TrapSignals", "MaxSurge"}, bad.Field) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// A worker that is suspended hears the stop signal all the same.
func TestContinueFollowsStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 1}, nil, func(p *proc.FakeProcess, sig syscall.Signal) {
			if sig == continueSignal {
				p.Exit(proc.Status{})
			}
		})
		done := r.startAgain()
		time.Sleep(time.Second)
		synctest.Wait()
		r.Deliver(term)
		<-done
		if got := r.process(1).Signals(); !slices.Equal(got, []syscall.Signal{term, continueSignal}) {
			t.Errorf("the worker was sent %v", got)
		}
	})
}
