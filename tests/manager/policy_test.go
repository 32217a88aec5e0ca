//go:build unix

package manager_test

import (
	"context"
	"log/slog"
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

// BeforeSpawn may add to a Spawn. Its changes of Slot, Generation and Ordinal
// have no effect.
func TestHookCannotMoveSpawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Slot, s.Generation, s.Ordinal = 7, 8, 9
			s.Env = append(s.Env, "ADDED=yes")
		}}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Second)
		synctest.Wait()
		for i, w := range r.Snapshot().Workers {
			if w.Slot != i || w.Generation != 1 || w.Ordinal != i+1 {
				t.Errorf("worker %d is %v", i+1, w)
			}
			if m := markerOf(t, r.process(i+1)); m.Slot != i || m.Generation != 1 || m.Ordinal != i+1 {
				t.Errorf("worker %d was started as %+v", i+1, m)
			}
		}
		r.wantWorkers("after the start", 2)
		r.Deliver(term)
		<-done
	})
}

// levels records the level of the log records about each exit.
type levels struct {
	slog.Handler
	mu   *sync.Mutex
	exit map[string][]slog.Level // by reason
}

func (l levels) Handle(_ context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.exit[a.Value.String()] = append(l.exit[a.Value.String()], rec.Level)
		}
		return true
	})
	return nil
}

func (l levels) Enabled(context.Context, slog.Level) bool { return true }
func (l levels) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l levels) WithGroup(string) slog.Handler            { return l }

// A crash is logged at level Warn or above, an exit that was asked for below.
func TestLevelOfExits(t *testing.T) {
	logged := levels{Handler: slog.DiscardHandler, mu: new(sync.Mutex), exit: make(map[string][]slog.Level)}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, Logger: slog.New(logged)}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.process(1).Exit(proc.Status{Signal: syscall.SIGSEGV})
		r.process(2).Exit(proc.Status{Code: 3})
		time.Sleep(time.Minute)
		r.Deliver(term)
		<-done
	})
	crashed, stopped := logged.exit["crashed"], logged.exit["stopped"]
	if len(crashed) != 2 || crashed[0] < slog.LevelWarn || crashed[1] < slog.LevelWarn {
		t.Errorf("crashes are logged at %v", crashed)
	}
	if len(stopped) != 2 || stopped[0] >= slog.LevelWarn || stopped[1] >= slog.LevelWarn {
		t.Errorf("exits that were asked for are logged at %v", stopped)
	}
}

// A worker that is stopping does not count for the sizing by load, whatever status
// it publishes.
func TestStoppingWorkersDoNotCount(t *testing.T) {
	for name, c := range map[string]struct {
		max, minSpare, maxSpare int
		during                  func(*boardRig)
	}{
		"as idle ones": {4, 2, 2, func(r *boardRig) {
			r.wantWorkers("at first", 2)
			r.set(1, prefork.StatusIdle)
			r.set(2, prefork.StatusIdle)
			r.SignalAllChildren(term)
			time.Sleep(time.Minute)
			r.wantWorkers("two stopping, two new", 4)
			r.set(3, prefork.StatusIdle)
			r.set(4, prefork.StatusIdle)
			time.Sleep(time.Minute)
			r.wantWorkers("all idle", 4)
			r.wantSignals(3)
			r.wantSignals(4)
		}},
		"as ones that have reported": {4, 1, 1, func(r *boardRig) {
			r.set(1, 'R')
			time.Sleep(time.Minute)
			r.set(2, 'R')
			time.Sleep(time.Minute)
			r.wantWorkers("two busy, one idle", 3)
			r.set(2, prefork.StatusIdle)
			time.Sleep(time.Minute)
			r.wantSignals(3, term) // and it ignores that
			r.set(2, 'R')
			time.Sleep(time.Minute)
			r.wantWorkers("two busy, one stopping, one new", 4)
		}},
		"as surplus ones": {6, 1, 2, func(r *boardRig) {
			for i := range 3 {
				r.set(i+1, 'R')
				time.Sleep(time.Minute)
			}
			r.wantWorkers("three busy, one idle", 4)
			send(r.process(4), wire.Recycle{})
			time.Sleep(time.Minute)
			r.wantWorkers("the idle one is replaced", 5)
			r.wantSignals(4, term)
			for i := range 3 {
				r.set(i+1, prefork.StatusIdle)
				time.Sleep(time.Minute)
			}
			// The youngest first.
			for i, want := range [][]syscall.Signal{nil, nil, {term}, {term}, {term}} {
				r.wantSignals(i+1, want...)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBoardRigWith(t, prefork.Config{MaxWorkers: c.max, MinSpareWorkers: c.minSpare, MaxSpareWorkers: c.maxSpare, StopTimeout: -1}, ignoreSignals)
				done := r.startLoop()
				time.Sleep(time.Minute)
				c.during(r)
				r.Deliver(term)
				for _, p := range r.fake.Started() {
					p.Exit(proc.Status{})
				}
				<-done
			})
		})
	}
}

// A standby does not keep a pool from being paused, not even while it starts.
func TestAllPausedWithStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Standby: 1}, func(p *proctest.Process) {
			if p.ID == 1 {
				reachStart(p)
			}
		}, nil)
		done := r.startLoop()
		time.Sleep(time.Second)
		r.Pause()
		synctest.Wait()
		if r.Snapshot().AllPaused() {
			t.Error("all paused before the worker has confirmed")
		}
		send(r.process(1), wire.Paused{N: 1})
		synctest.Wait()
		if s := r.Snapshot(); !s.AllPaused() || s.Standbys != 1 {
			t.Errorf("not all paused, with a standby that starts: %v", s)
		}
		send(r.process(2), wire.Parked{})
		synctest.Wait()
		if s := r.Snapshot(); !s.AllPaused() {
			t.Errorf("not all paused, with a standby: %v", s)
		}
		r.Deliver(term)
		<-done
	})
}

// Workers that started together are recycled at different times: up to 20 % are
// taken off each limit, at random.
func TestRecycleJitter(t *testing.T) {
	const workers = 20
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: workers, Recycle: prefork.Recycle{MaxRequests: 1_000_000, MaxLifetime: time.Hour}}, nil, nil)
		done := r.startLoop()
		time.Sleep(90 * time.Minute) // each exactly once
		synctest.Wait()
		var uptimes, requests []int64
		r.mu.Lock()
		for _, e := range r.exits {
			if e.Reason != prefork.ReasonRecycled {
				t.Errorf("%v", e)
			}
			uptimes = append(uptimes, int64(e.Uptime))
		}
		r.mu.Unlock()
		for i := range workers {
			requests = append(requests, int64(markerOf(t, r.process(i+1)).Requests))
		}
		wantJitter(t, "lifetimes", uptimes, workers, int64(time.Hour))
		wantJitter(t, "numbers of requests", requests, workers, 1_000_000)
		r.Deliver(term)
		<-done
	})
}

// wantJitter fails the test unless all values lie within 20 % below the limit,
// and are spread over half of that.
func wantJitter(t *testing.T, of string, values []int64, n int, limit int64) {
	t.Helper()
	if len(values) != n {
		t.Fatalf("%d %s, want %d", len(values), of, n)
	}
	least, most := limit, int64(0)
	for _, v := range values {
		least, most = min(least, v), max(most, v)
	}
	if least < limit*8/10 || most > limit+int64(time.Second) || most-least < limit/10 {
		t.Errorf("%s from %d to %d, the limit is %d", of, least, most, limit)
	}
}

// On a busy machine, the start of a process can take longer than the loop works
// without a pause, by which it notices that the system was frozen.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, StopTimeout: 10 * time.Second}, func(p *proctest.Process) {
			time.Sleep(5 * time.Second)
			reachStart(p)
		}, nil)
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantWorkers("after a minute", 3)
		r.Shutdown()
		<-done
	})
}
