//go:build unix

package manager_test

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// awaitTakeOver becomes ready and asks whether it is the only one of its slot.
func awaitTakeOver(p *proctest.Process) {
	time.AfterFunc(boot, func() {
		send(p, wire.Ready{})
		send(p, wire.AwaitTakeOver{})
		send(p, wire.AwaitTakeOver{}) // it is answered once
	})
}

// ignoreFirst lets the workers of the first generation ignore signals.
func ignoreFirst(r **rig) func(*proctest.Process, syscall.Signal) {
	return func(p *proctest.Process, sig syscall.Signal) {
		if sig == term && !slices.Contains((*r).fake.Started()[:2], p) {
			p.Exit(proc.Status{})
		}
	}
}

func (r *rig) wantTakeOver(when string, i int, want bool) {
	r.t.Helper()
	if got := slices.Equal(r.messages(i), []wire.Message{wire.TakeOver{}}); got != want {
		r.t.Errorf("%s: worker %d may take over: %v, want %v (%v)", when, i, got, want, r.messages(i))
	}
}

// A worker learns when it is the only one of its slot: at once, or when the worker
// that it replaces was reaped.
func TestTookOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, prefork.Config{MaxWorkers: 2, MaxSurge: 2, TrapSignals: rollingHup, StopTimeout: -1}, awaitTakeOver, ignoreFirst(&r))
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantTakeOver("first generation", 1, true)
		r.wantTakeOver("first generation", 2, true)
		r.Deliver(hup)
		time.Sleep(time.Minute)
		r.wantTakeOver("old worker is stopping", 3, false)
		r.wantTakeOver("old worker is stopping", 4, false)
		r.process(1).Exit(proc.Status{})
		r.wantTakeOver("old worker is gone", 3, true)
		r.wantTakeOver("another old worker is gone", 4, false)
		r.process(2).Exit(proc.Status{Code: 1})
		r.wantTakeOver("all are gone", 4, true)
		r.process(3).Exit(proc.Status{Code: 1})
		time.Sleep(time.Minute)
		r.wantTakeOver("respawned", 5, true)
		r.Deliver(term)
		<-done
	})
}

// A worker also waits for leftover processes, and one that exits while it waits
// is forgotten.
func TestTookOverLeftover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup, StopGroup: true, StopTimeout: time.Minute}, awaitTakeOver,
			func(p *proctest.Process, sig syscall.Signal) {
				if sig == term {
					p.Exit(proc.Status{})
				}
			})
		done := r.startLoop()
		time.Sleep(time.Second)
		synctest.Wait()
		r.process(1).Fork()
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.wantTakeOver("a process remains", 2, false)
		r.process(2).Exit(proc.Status{Code: 1})
		time.Sleep(10 * time.Second)
		r.wantTakeOver("a process remains, respawned", 3, false)
		r.process(1).ExitForked()
		time.Sleep(time.Second)
		r.wantTakeOver("it is gone", 3, true)
		r.wantTakeOver("it is gone", 2, false)
		r.Deliver(term)
		<-done
	})
}
