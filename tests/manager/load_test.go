//go:build unix

package manager_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

// boardRig is a rig whose pretended workers have scoreboard cells.
type boardRig struct {
	*rig
	rings atomic.Int64

	mu    sync.Mutex
	cells map[uint64]*scoreboard.Writer // by ordinal
}

func newBoardRig(t *testing.T, cfg prefork.Config) *boardRig {
	t.Helper()
	return newBoardRigWith(t, cfg, func(p *proctest.Process, sig syscall.Signal) {
		if sig == term || sig == syscall.SIGQUIT {
			p.Exit(proc.Status{})
		}
	})
}

func newBoardRigWith(t *testing.T, cfg prefork.Config, onSignal func(*proctest.Process, syscall.Signal)) *boardRig {
	t.Helper()
	r := &boardRig{cells: make(map[uint64]*scoreboard.Writer)}
	r.rig = newRig(t, cfg, func(p *proctest.Process) {
		w, err := scoreboard.Open(int(p.Spec.Files[markerOf(t, p).Cell]), func() {
			r.rings.Add(1)
			send(p, wire.StatusChanged{})
		})
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.cells[p.ID] = w
		r.mu.Unlock()
		reachStart(p)
	}, onSignal)
	return r
}

// set makes a worker publish its status.
func (r *boardRig) set(ordinal int, status byte) {
	r.mu.Lock()
	w := r.cells[uint64(ordinal)]
	r.mu.Unlock()
	w.Set(status)
}

// The manager reads the board about a thousand times a second if a worker
// changes its status all the time. Reading it more often would leave no time
// for anything else. The first change after a quiet period is read at once.
func TestBoardReadsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, prefork.Config{MaxWorkers: 3, MinSpareWorkers: 2, MaxSpareWorkers: 3})
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantWorkers("at first", 2)

		r.set(1, 'R')
		r.wantWorkers("at the moment in which one is busy", 3)
		time.Sleep(time.Minute)

		before := r.rings.Load()
		for range 10_000 {
			r.set(2, 'R') // clears the notify flag
			r.set(2, prefork.StatusIdle)
			time.Sleep(100 * time.Microsecond) // sets it again
		}
		if rings := r.rings.Load() - before; rings > 1100 {
			t.Errorf("%d rings in a second", rings)
		}
		r.wantWorkers("after that", 3)
		r.SetMaxWorkers(6)
		r.set(3, 'R')
		time.Sleep(20 * time.Millisecond)
		r.wantWorkers("soon after another is busy, and one more is allowed", 4)
		r.Deliver(term)
		<-done
	})
}

// D10: a worker that became busy since the manager last read the board is not
// stopped, even if SpawnInterval delayed the decision.
func TestD10NoBusyWorkerIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, prefork.Config{MaxWorkers: 6, MinSpareWorkers: 1, MaxSpareWorkers: 2, SpawnInterval: time.Second})
		done := r.startLoop()
		for i := range 6 {
			time.Sleep(time.Minute)
			r.set(i+1, 'R')
		}
		time.Sleep(time.Minute)
		r.wantWorkers("all busy", 6)
		for i := 6; i > 0; i-- { // the manager may read the board between any two of them
			r.set(i, prefork.StatusIdle)
		}
		time.Sleep(time.Second / 2)
		r.wantWorkers("after half a second, all idle", 5)
		r.wantSignals(6, term) // the youngest first
		r.set(5, 'R')          // at most one of the two notifies the manager
		time.Sleep(time.Second / 10)
		r.set(4, 'R')
		time.Sleep(time.Minute)
		r.wantWorkers("two busy, two idle", 4)
		for i, want := range [][]syscall.Signal{nil, nil, {term}, nil, nil, {term}} {
			r.wantSignals(i+1, want...)
		}
		r.Deliver(term)
		<-done
	})
}

// D10: a worker is not stopped if its becoming busy is read together with the
// idleness of others.
func TestD10BusyAndIdleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *boardRig
		r = newBoardRig(t, prefork.Config{
			MaxWorkers: 3, MinSpareWorkers: 1, MaxSpareWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {}},
			Observe: func(ev prefork.Event) {
				// the loop waits for this hook
				if ev, ok := ev.(prefork.SignalEvent); ok && ev.Received == usr1 {
					r.set(1, prefork.StatusIdle)
					r.set(2, prefork.StatusIdle)
					r.set(3, 'R')
				}
			},
		})
		done := r.startRun(t.Context())
		for i := range 3 {
			time.Sleep(time.Minute)
			r.set(i+1, 'R')
		}
		time.Sleep(time.Minute)
		r.set(3, prefork.StatusIdle)
		time.Sleep(time.Minute)
		r.wantWorkers("two busy, one idle", 3)
		r.Deliver(usr1)
		time.Sleep(time.Minute)
		r.wantSignals(1)
		r.wantSignals(2, term)
		r.wantSignals(3)
		r.Deliver(term)
		<-done
	})
}

// The pool follows changes of MaxWorkers in both directions. Without
// MaxSpareWorkers any number of workers may be idle. The table need not contain
// the stop signal.
func TestSizingFollowsMaxWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, prefork.Config{MaxWorkers: 2, MinSpareWorkers: 1, TrapSignals: prefork.Signals{}})
		done := r.startLoop()
		all := func(status byte) {
			time.Sleep(time.Minute)
			for i := range r.fake.Started() {
				time.Sleep(time.Minute)
				r.set(i+1, status)
			}
			time.Sleep(time.Minute)
		}
		all('R')
		all('R')
		r.wantWorkers("all busy", 2)
		r.SetMaxWorkers(5)
		time.Sleep(time.Minute)
		r.wantWorkers("may be more", 3)
		for range 3 {
			all('R')
		}
		r.wantWorkers("all busy again", 5)
		all(prefork.StatusIdle)
		r.wantWorkers("all idle", 5)
		r.SetMaxWorkers(3)
		time.Sleep(time.Minute)
		r.wantWorkers("may be less", 3)
		r.wantSignals(5, term)
		r.Deliver(term) // the table does not forward it
		time.Sleep(time.Minute)
		r.SignalAllChildren(term)
		<-done
	})
}

// A status published before the worker is ready counts: a busy worker is no
// spare one.
func TestBusyBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, prefork.Config{MaxWorkers: 3, MinSpareWorkers: 1, Readiness: prefork.Readiness{Explicit: true}})
		r.fake.OnStart = func(start func(*proctest.Process)) func(*proctest.Process) {
			return func(p *proctest.Process) {
				start(p)
				if p.ID == 1 {
					r.set(1, 'W')
				}
			}
		}(r.fake.OnStart)
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantWorkers("one busy since before it was ready", 2)
		if n := r.NumActiveWorkers(); n != 1 {
			t.Errorf("%d are active, want 1", n)
		}
		r.Deliver(term)
		<-done
	})
}
