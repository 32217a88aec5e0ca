//go:build unix

package manager_test

import (
	"context"
	"errors"
	"maps"
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

// StopSignal stops the workers, whether or not the table has ShutdownSignal, and
// by every way of a stop.
func TestStopSignal(t *testing.T) {
	const quit, stop = syscall.SIGQUIT, syscall.SIGINT
	endOnStop := func(p *proctest.Process, sig syscall.Signal) {
		if sig == stop {
			p.Exit(proc.Status{})
		}
	}
	for name, test := range map[string]struct {
		cfg  prefork.Config
		loop func(*rig) // runs the pool until it ends
		act  func(*rig)
	}{
		"default table, Start":  {prefork.Config{}, (*rig).loop, (*rig).Shutdown},
		"default table, Run":    {prefork.Config{}, (*rig).runAll, (*rig).Shutdown},
		"default table, signal": {prefork.Config{}, (*rig).loop, func(r *rig) { r.receive(term) }},
		"empty table, Run":      {prefork.Config{TrapSignals: prefork.Signals{}}, (*rig).runAll, (*rig).Shutdown},
		"nothing in the table":  {prefork.Config{TrapSignals: prefork.Signals{term: {}}}, (*rig).runAll, func(r *rig) { r.receive(term) }},
		"same in the table":     {prefork.Config{TrapSignals: prefork.Signals{quit: {Signal: stop}}, ShutdownSignal: quit}, (*rig).runAll, func(r *rig) { r.receive(quit) }},
		"untrapped":             {prefork.Config{Untrapped: true}, (*rig).runAll, (*rig).Shutdown},
		"surplus": {prefork.Config{}, (*rig).runAll, func(r *rig) {
			r.SetMaxWorkers(0)
			r.wantWorkers("after SetMaxWorkers(0)", 0)
			r.Shutdown()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := test.cfg
				cfg.MaxWorkers, cfg.StopSignal = 1, stop
				r := newRig(t, cfg, nil, endOnStop)
				done := make(chan struct{})
				go func() {
					defer close(done)
					test.loop(r)
				}()
				time.Sleep(time.Second)
				test.act(r)
				<-done
				if got := r.process(1).Signals(); len(got) == 0 || got[0] != stop || r.exits[0].Reason != prefork.ReasonStopped {
					t.Errorf("the worker was sent %v, and was %v", got, r.exits[0].Reason)
				}
			})
		})
	}
	// A signal of the table that is not the stop signal does not stop a worker, and
	// one that is begins a generation.
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, StopSignal: stop, TrapSignals: prefork.Signals{hup: {Signal: stop}, usr1: {Signal: term}}}, nil, endOnStop)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		synctest.Wait()
		r.receive(usr1)
		r.wantSignals(1, term)
		if s := r.Snapshot(); s.Generation != 1 || s.Workers[0].State != prefork.StateReady {
			t.Errorf("after TERM: %v", s)
		}
		r.receive(hup)
		time.Sleep(time.Second)
		if s := r.Snapshot(); s.Generation != 2 || s.Workers[0].Ordinal != 2 {
			t.Errorf("after HUP: %v", s)
		}
		r.Shutdown()
		<-done
	})
}

func (r *rig) loop()   { <-r.startLoop() }
func (r *rig) runAll() { <-r.startRun(context.Background()) }

func TestStopSignalErrors(t *testing.T) {
	for want, cfg := range map[string]prefork.Config{
		"forwards SIGTERM for ShutdownSignal": {StopSignal: hup, TrapSignals: prefork.Signals{term: {Signal: term}}},
		"no signal 99":                        {StopSignal: syscall.Signal(99)},
		"not a signal of the system":          {StopSignal: notASignal{}},
	} {
		cfg.Name = t.Name()
		var bad *prefork.ConfigError
		if _, err := prefork.New(cfg); !errors.As(err, &bad) || bad.Field != "StopSignal" || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
}

// An untrapped Manager traps no signal, in New or in Run, whatever its table has.
func TestUntrapped(t *testing.T) {
	for name, table := range map[string]prefork.Signals{"nil": nil, "empty": {}, "full": {term: {Signal: term}, hup: {Signal: term}, usr1: {}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 1, Untrapped: true, TrapSignals: table}, nil, nil)
				ctx, cancel := context.WithCancel(context.Background())
				done := r.startRun(ctx)
				time.Sleep(time.Second)
				if len(r.handlers) > 0 {
					t.Errorf("trapped: %v", slices.Collect(maps.Keys(r.handlers)))
				}
				r.Deliver(hup) // the table has it, or it is ignored
				time.Sleep(time.Second)
				if _, named := table[hup]; r.Generation() > 1 != named {
					t.Errorf("generation %d after Deliver(HUP)", r.Generation())
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
