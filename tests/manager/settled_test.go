//go:build unix

package manager_test

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// settles records, at each event, whether the pool is settled there.
type settles struct {
	*rig
	lock sync.Mutex
	log  []string
}

func newSettles(t *testing.T, cfg prefork.Config, startLoop bool, opt options) *settles {
	s := &settles{}
	cfg.Observe = func(ev prefork.Event) {
		now := s.Snapshot()
		ready := 0
		for _, w := range now.Workers {
			if w.State == prefork.StateReady && w.Generation == now.Serving {
				ready++
			}
		}
		if now.Settled && ready < now.MaxWorkers && !startLoop {
			t.Errorf("settled at %v: %+v", ev, now)
		}
		s.lock.Lock()
		defer s.lock.Unlock()
		if ev, ok := ev.(prefork.SettledEvent); ok {
			s.log = append(s.log, fmt.Sprintf("settled %d", ev.Generation))
			if !now.Settled || now.Serving != ev.Generation || now.Change != nil {
				t.Errorf("at %v: %+v", ev, now)
			}
			return
		}
		if failed, ok := ev.(prefork.RollFailedEvent); ok {
			s.log = append(s.log, fmt.Sprintf("failed %d", failed.Generation))
			if now.Change != nil || now.LastReload == nil || now.LastReload.Err == nil || now.LastReload.Generation != failed.Generation {
				t.Errorf("at %v: %+v", ev, now)
			}
		}
	}
	s.rig = newRigWith(t, cfg, opt)
	return s
}

// forget begins a new log.
func (s *settles) forget() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.log = nil
}

func (s *settles) want(when string, want ...string) {
	s.t.Helper()
	synctest.Wait()
	s.lock.Lock()
	defer s.lock.Unlock()
	if got := strings.Join(s.log, ", "); got != strings.Join(want, ", ") {
		s.t.Errorf("%s: %s, want %s", when, got, strings.Join(want, ", "))
	}
}

// A pool is settled when all workers are ready, and again after each change: when
// workers were replaced, when Reload has failed, and when a failed generation was
// reversed.
func TestSettledEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reloadErr error
		dies := false
		s := newSettles(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term, Interval: time.Second}},
			Reload: func() ([]byte, error) { return nil, reloadErr },
		}, false, options{onStart: func(p *proctest.Process) {
			if dies {
				time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 3}) })
				return
			}
			reachStart(p)
		}})
		done := s.startRun(t.Context())
		s.want("at the start")
		time.Sleep(boot)
		s.want("ready", "settled 1")
		now := s.Snapshot()
		if !now.Settled || now.Serving != 1 || now.Change != nil || now.LastReload != nil {
			t.Errorf("%+v", now)
		}
		time.Sleep(10 * time.Second)

		s.forget()
		s.Deliver(hup)
		synctest.Wait()
		began := time.Now()
		now = s.Snapshot()
		if c := now.Change; now.Settled || now.Serving != 1 || now.Generation != 2 || c == nil ||
			*c != (prefork.Change{Kind: "reload", Generation: 2, Began: c.Began, Of: 2}) || !c.Began.Equal(began) {
			t.Errorf("%+v, %+v", now, now.Change)
		}
		time.Sleep(boot)
		synctest.Wait()
		if now = s.Snapshot(); now.Settled || now.Change == nil || now.Change.Replaced != 1 {
			t.Errorf("in the middle: %+v", now.Change)
		}
		time.Sleep(boot)
		s.want("rolled", "settled 2")
		if last := s.Snapshot().LastReload; last == nil || last.Generation != 2 || last.Err != nil || !last.Began.Equal(began) || last.Ended.Sub(began) != 2*boot {
			t.Errorf("%+v", last)
		}
		time.Sleep(10 * time.Second)

		s.forget()
		reloadErr = errors.New("a typo")
		s.Deliver(hup)
		s.want("after a Reload that failed", "settled 2")
		if last := s.Snapshot().LastReload; last.Generation != 3 || !errors.Is(last.Err, reloadErr) {
			t.Errorf("%+v", last)
		}

		s.forget()
		reloadErr, dies = nil, true
		s.Deliver(hup)
		time.Sleep(boot)
		s.want("when a generation has failed", "failed 3", "settled 2")
		if now := s.Snapshot(); now.Generation != 3 || now.Serving != 2 || !strings.Contains(now.LastReload.Err.Error(), "exit code 3") {
			t.Errorf("%+v", now)
		}

		s.forget()
		dies = false
		s.Deliver(usr1)
		time.Sleep(10 * boot)
		s.want("in the middle of a staggered reload")
		time.Sleep(time.Second)
		s.want("after a staggered reload", "settled 4")

		s.forget()
		s.process(len(s.fake.Started())).Exit(proc.Status{Code: 1})
		s.want("after a crash")
		time.Sleep(2 * time.Second)
		s.want("after a respawn", "settled 4")
		s.SetMaxWorkers(3)
		if s.Snapshot().Settled {
			t.Error("settled before a resize has begun")
		}
		time.Sleep(boot)
		s.want("after a resize", "settled 4", "settled 4")
		s.SetMaxWorkers(2)
		s.SetMaxWorkers(3)
		s.want("after one that changes nothing", "settled 4", "settled 4", "settled 4")
		s.Deliver(term)
		<-done
		if now := s.Snapshot(); now.Settled || now.Stopping.IsZero() {
			t.Errorf("after the end: %+v", now)
		}
	})
}

// In a Start loop the next Start settles: at once if the signal replaces nothing.
func TestSettledInStartLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettles(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Signal: usr1}}}, true, options{})
		done := s.startLoop()
		time.Sleep(time.Second)
		s.Deliver(usr1)
		s.want("after a signal that replaces nothing", "settled 1", "settled 2")
		s.Deliver(hup)
		s.want("after one that replaces the workers", "settled 1", "settled 2")
		time.Sleep(boot)
		s.want("when they are ready", "settled 1", "settled 2", "settled 3")
		if last := s.Snapshot().LastReload; last.Generation != 3 || last.Err != nil {
			t.Errorf("%+v", last)
		}
		s.Deliver(term)
		<-done
	})
}

// A reload that a shutdown, or WaitAllChildren, ends has failed.
func TestReloadThatIsEnded(t *testing.T) {
	for _, sig := range []syscall.Signal{term, usr1} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term}}}, nil, nil)
			go func() {
				time.Sleep(time.Second)
				r.Deliver(hup)
			}()
			r.Start()
			if r.Snapshot().Change == nil {
				t.Error("no change between two calls of Start")
			}
			if sig == term {
				r.Deliver(term)
				r.Start()
			} else {
				r.SignalAllChildren(term)
			}
			r.WaitAllChildren(t.Context())
			if now := r.Snapshot(); now.Change != nil || now.LastReload == nil || now.LastReload.Err == nil {
				t.Errorf("%+v, %+v", now.Change, now.LastReload)
			}
			r.shutDown()
		})
	}
}

// A slot that waits tells until when, and why. A new generation shortens it.
func TestSlotsInSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {}, usr1: {Signal: term}}, CrashLoop: prefork.CrashLoop{Failures: -1}}, func(p *proctest.Process) {
			if p.ID == 1 {
				reachStart(p)
				return
			}
			time.AfterFunc(100*time.Millisecond, func() { p.Exit(proc.Status{Code: 3}) })
		}, nil)
		done := r.startLoop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		slots := r.Snapshot().Slots
		if len(slots) != 2 || !reflect.DeepEqual(slots[0], prefork.SlotInfo{Spawns: 1}) {
			t.Fatalf("%+v", slots)
		}
		s := slots[1]
		if s.Slot != 1 || s.Spawns < 3 || s.Crashes != s.Spawns || s.LastExit == nil || s.LastExit.Status.Code != 3 || s.LastExit.Ordinal != s.Spawns+1 || time.Since(s.LastExitAt) > 10*time.Second {
			t.Errorf("%+v", s)
		}
		if wait := time.Until(s.WaitsUntil); wait < 2*time.Second || wait > 20*time.Second {
			t.Errorf("it waits for %v", wait)
		}
		time.Sleep(time.Until(s.WaitsUntil) + 200*time.Millisecond)
		synctest.Wait()
		before := r.Snapshot().Slots[1]
		if before.Spawns != s.Spawns+1 || time.Until(before.WaitsUntil) < 5*time.Second {
			t.Errorf("after the delay: %+v", before)
		}
		r.Deliver(hup)
		synctest.Wait()
		after := r.Snapshot().Slots[1]
		if time.Until(after.WaitsUntil) > time.Second || after.Crashes != 0 {
			t.Errorf("a new generation: waits for %v, %+v", time.Until(after.WaitsUntil), after)
		}
		r.Deliver(term)
		<-done
		if s := r.Snapshot().Slots[1]; !s.WaitsUntil.IsZero() {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// Spawns that fail hold all others up.
func TestSpawnsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, nil)
		r.fake.FailNext(2, syscall.EAGAIN)
		done := r.startLoop()
		synctest.Wait()
		if d := time.Until(r.Snapshot().SpawnsHeldUntil); d != time.Second {
			t.Errorf("held for %v", d)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if d := time.Until(r.Snapshot().SpawnsHeldUntil); d != 2*time.Second {
			t.Errorf("held for %v", d)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if now := r.Snapshot(); !now.SpawnsHeldUntil.IsZero() || now.Slots[0].Spawns != 1 {
			t.Errorf("%+v", now)
		}
		r.Deliver(term)
		<-done
	})
}

// A worker tells since when it is in its state, when it will be killed, and how
// long it took to be ready; so does its exit.
func TestTimesOfWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Standby: 1, StopTimeout: time.Minute, Readiness: prefork.Readiness{Timeout: 10 * time.Second}}, func(p *proctest.Process) {
			switch p.ID {
			case 1:
				time.AfterFunc(3*time.Second, func() { send(p, wire.Ready{}) })
			default:
				time.AfterFunc(time.Second, func() { send(p, wire.Parked{}) })
			}
		}, ignoreSignals)
		began := time.Now()
		done := r.startLoop()
		check := func(when string, i int, state prefork.State, since, deadline, readyAfter time.Duration) {
			t.Helper()
			synctest.Wait()
			w := r.Snapshot().Workers[i]
			got := time.Duration(0)
			if !w.Deadline.IsZero() {
				got = w.Deadline.Sub(began)
			}
			if w.State != state || w.Since.Sub(began) != since || got != deadline || w.ReadyAfter != readyAfter {
				t.Errorf("%s: %v since %v, deadline %v, ready after %v; want %v, %v, %v, %v", when, w.State, w.Since.Sub(began), got, w.ReadyAfter, state, since, deadline, readyAfter)
			}
		}
		const s = time.Second
		check("starting", 0, prefork.StateStarting, 0, 10*s, 0)
		time.Sleep(4 * s)
		check("ready", 0, prefork.StateReady, 3*s, 0, 3*s)
		check("standby", 1, prefork.StateStandby, s, 0, 0)
		time.Sleep(6 * s)
		r.process(1).Exit(proc.Status{Code: 1})
		check("promoted", 0, prefork.StateStarting, 10*s, 20*s, 0)
		r.mu.Lock()
		if e := r.exits[0]; e.ReadyAfter != 3*s {
			t.Errorf("%+v", e)
		}
		r.mu.Unlock()
		time.Sleep(2 * s)
		send(r.process(2), wire.Ready{})
		check("ready", 0, prefork.StateReady, 12*s, 0, 2*s)
		r.Deliver(term)
		check("stopping", 0, prefork.StateStopping, 12*s, 72*s, 2*s)
		r.mu.Lock()
		if ev, ok := r.events[len(r.events)-1].(prefork.StateEvent); !ok || ev.Worker.Deadline.IsZero() {
			t.Errorf("%#v", r.events[len(r.events)-1])
		}
		r.mu.Unlock()
		<-done
	})
}

// The Loop names the call and the hook.
func TestLoopInSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := newRig(t, prefork.Config{MaxWorkers: 1, BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { time.Sleep(time.Minute) }}, nil, nil)
		check := func(when string, want prefork.Loop) {
			t.Helper()
			synctest.Wait()
			if got := r.Snapshot().Loop; got.Call != want.Call || got.Hook != want.Hook || !got.Since.Equal(want.Since) {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
		check("before", prefork.Loop{})
		if now := r.Snapshot(); !now.Started.Equal(began) || !now.Stopping.IsZero() {
			t.Errorf("%+v", now)
		}
		time.Sleep(time.Second)
		done := r.startLoop()
		time.Sleep(time.Second)
		check("in a hook", prefork.Loop{Call: "Start", Hook: "BeforeSpawn", Since: began.Add(time.Second)})
		time.Sleep(2 * time.Minute)
		check("after it", prefork.Loop{Call: "Start", Since: began.Add(time.Second)})
		r.Deliver(term)
		<-done
		check("at the end", prefork.Loop{})
		if stopping := r.Snapshot().Stopping; stopping.Sub(began) != 2*time.Minute+2*time.Second {
			t.Errorf("stopping since %v", stopping.Sub(began))
		}
	})
}

// BenchmarkSnapshot measures a Snapshot of pretended workers.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newRigWith(b, prefork.Config{MaxWorkers: n, Logger: slog.New(slog.DiscardHandler), TrapSignals: prefork.Signals{term: {Signal: term}}}, options{
				unobserved: true, onStart: func(p *proctest.Process) { send(p, wire.Ready{}) },
			})
			settled := make(chan struct{})
			_, stop := m.Follow(func(rec prefork.Record) {
				if _, ok := rec.Event.(prefork.SettledEvent); ok {
					close(settled)
				}
			})
			done := m.startRun(b.Context())
			<-settled
			stop()
			b.ReportAllocs()
			for b.Loop() {
				if got := m.Snapshot(); len(got.Workers) != n || len(got.Slots) != n {
					b.Fatal(len(got.Workers), len(got.Slots))
				}
			}
			b.StopTimer()
			m.Shutdown()
			<-done
		})
	}
}
