//go:build unix

package prefork

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

// boardRig is a rig whose pretended workers have their cells.
type boardRig struct {
	*rig
	rings atomic.Int64

	mu    sync.Mutex
	cells map[uint64]*scoreboard.Writer // by ordinal
}

func newBoardRig(t *testing.T, cfg Config) *boardRig {
	t.Helper()
	r := &boardRig{cells: make(map[uint64]*scoreboard.Writer)}
	r.rig = newRig(t, cfg, func(p *proc.FakeProcess) {
		w, err := scoreboard.Open(int(p.Spec.Files[markerOf(t, p).Cell]), func() {
			r.rings.Add(1)
			p.Say(wire.Append(nil, wire.Bell{}))
		})
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.cells[p.ID] = w
		r.mu.Unlock()
		reachStart(p)
	}, func(p *proc.FakeProcess, sig syscall.Signal) {
		if sig == term || sig == syscall.SIGQUIT {
			p.Exit(proc.Status{})
		}
	})
	return r
}

func markerOf(t *testing.T, p *proc.FakeProcess) inherit.Marker {
	for _, v := range p.Spec.Env {
		if value, ok := strings.CutPrefix(v, inherit.Env+"="); ok {
			m, err := inherit.Parse(value)
			if err != nil {
				t.Error(err)
			}
			return m
		}
	}
	t.Error("a worker without a marker")
	return inherit.Marker{}
}

// set has a worker publish its status.
func (r *boardRig) set(ordinal int, status byte) {
	r.mu.Lock()
	w := r.cells[uint64(ordinal)]
	r.mu.Unlock()
	w.Set(status)
}

// A worker that changes its status without end has the board read about a thousand times a second, and no more; else the manager
// would do nothing but that. What changes after a quiet time is seen at once all the same.
func TestDoorbellIsSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, Config{MaxWorkers: 3, MinSpareWorkers: 2, MaxSpareWorkers: 3})
		done := r.startAgain()
		time.Sleep(time.Minute)
		r.wantWorkers("at first", 2)

		r.set(1, 'R')
		r.wantWorkers("at the moment in which one is busy", 3)
		time.Sleep(time.Minute)

		before := r.rings.Load()
		for range 10_000 {
			r.set(2, 'R') // takes the bell off
			r.set(2, StatusIdle)
			time.Sleep(100 * time.Microsecond) // and here it is on again
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

// D10: who has become busy since it was looked at last is not stopped, also where SpawnInterval has let time pass.
func TestD10NoBusyWorkerIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, Config{MaxWorkers: 6, MinSpareWorkers: 1, MaxSpareWorkers: 2, SpawnInterval: time.Second})
		done := r.startAgain()
		for i := range 6 {
			time.Sleep(time.Minute)
			r.set(i+1, 'R')
		}
		time.Sleep(time.Minute)
		r.wantWorkers("all busy", 6)
		for i := 6; i > 0; i-- { // the manager may look at any moment between them
			r.set(i, StatusIdle)
		}
		time.Sleep(time.Second / 2)
		r.wantWorkers("after half a second, all idle", 5)
		r.wantSignals(6, term) // the youngest first
		r.set(5, 'R')          // one of the two rings at most
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

// D10: nor is one stopped of whom the manager hears that it is busy together with others' being idle.
func TestD10BusyAndIdleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, Config{MaxWorkers: 3, MinSpareWorkers: 1, MaxSpareWorkers: 1})
		done := r.startAgain()
		for i := range 3 {
			time.Sleep(time.Minute)
			r.set(i+1, 'R')
		}
		time.Sleep(time.Minute)
		r.set(3, StatusIdle)
		time.Sleep(time.Minute)
		r.wantWorkers("two busy, one idle", 3)
		r.Manager.mu.Lock() // the loop waits, having heard that 1 is idle
		r.set(1, StatusIdle)
		r.set(2, StatusIdle)
		r.set(3, 'R')
		r.Manager.mu.Unlock()
		time.Sleep(time.Minute)
		r.wantSignals(1)
		r.wantSignals(2, term)
		r.wantSignals(3)
		r.Deliver(term)
		<-done
	})
}

// The pool follows MaxWorkers as it is changed, up and down; without a MaxSpareWorkers all may be idle, however many those are by then.
// The stop signal need not be in the table.
func TestSizingFollowsMaxWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, Config{MaxWorkers: 2, MinSpareWorkers: 1, TrapSignals: Signals{}})
		done := r.startAgain()
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
		all(StatusIdle)
		r.wantWorkers("all idle", 5)
		r.SetMaxWorkers(3)
		time.Sleep(time.Minute)
		r.wantWorkers("may be less", 3)
		r.wantSignals(5, term)
		r.Deliver(term) // which the table sends to nobody
		time.Sleep(time.Minute)
		r.SignalAllChildren(term)
		<-done
	})
}

// What a worker says before it is ready counts: one that is busy then is no spare one.
func TestBusyBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t, Config{MaxWorkers: 3, MinSpareWorkers: 1, Readiness: Readiness{Explicit: true}})
		r.fake.OnStart = func(start func(*proc.FakeProcess)) func(*proc.FakeProcess) {
			return func(p *proc.FakeProcess) {
				start(p)
				if p.ID == 1 {
					r.set(1, 'W')
				}
			}
		}(r.fake.OnStart)
		done := r.startAgain()
		time.Sleep(time.Minute)
		r.wantWorkers("one busy since before it was ready", 2)
		if n := r.NumActiveWorkers(); n != 1 {
			t.Errorf("%d are active, want 1", n)
		}
		r.Deliver(term)
		<-done
	})
}

// BenchmarkReadBoard is what the manager pays for a ring, beside being woken.
func BenchmarkReadBoard(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, err := newManager(Config{Name: b.Name(), MaxWorkers: n, MinSpareWorkers: 5}, func(notify func(proc.Note)) proc.Table { return proc.NewFake(notify) })
			if err != nil {
				b.Fatal(err)
			}
			defer self.unregister(b.Name())
			var writers []*scoreboard.Writer
			for i := range n {
				cell, fd, err := newCell()
				if err != nil {
					b.Fatal(err)
				}
				w, err := scoreboard.Open(fd, func() {})
				if err != nil {
					b.Fatal(err)
				}
				inherit.Close(fd)
				writers = append(writers, w)
				m.children[i+1] = &child{WorkerInfo: WorkerInfo{Slot: i, Ordinal: i + 1, State: StateReady}, cell: cell}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				writers[i/2%n].Set("R_"[i&1])
				m.readBoard()
			}
		})
	}
}
