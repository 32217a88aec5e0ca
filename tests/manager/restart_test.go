//go:build unix

package manager_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// exitAfter returns a start of workers that are ready at once and exit with the
// given codes, in turn, a second later; the last one repeats.
func exitAfter(codes ...int) func(*proctest.Process) {
	return func(p *proctest.Process) {
		code := codes[0]
		if len(codes) > 1 {
			codes = codes[1:]
		}
		reachStart(p)
		time.AfterFunc(time.Second, func() { p.Exit(proc.Status{Code: code}) })
	}
}

// Run returns nil when every slot is done, after one worker for each success. It
// can be called again, which starts them all.
func TestRunEndsWhenAllAreDone(t *testing.T) {
	for name, test := range map[string]struct {
		cfg     prefork.Config
		codes   []int
		workers int
		reasons []prefork.Reason
	}{
		"never":       {prefork.Config{MaxWorkers: 2, Restart: prefork.RestartNever}, []int{0, 1}, 2, []prefork.Reason{prefork.ReasonFinished, prefork.ReasonCrashed}},
		"on failure":  {prefork.Config{MaxWorkers: 1, Restart: prefork.RestartOnFailure}, []int{1, 7, 0}, 3, []prefork.Reason{prefork.ReasonCrashed, prefork.ReasonCrashed, prefork.ReasonFinished}},
		"other codes": {prefork.Config{MaxWorkers: 1, Restart: prefork.RestartOnFailure, SuccessCodes: []int{7, 9}}, []int{1, 7}, 2, []prefork.Reason{prefork.ReasonCrashed, prefork.ReasonFinished}},
		"a command":   {prefork.Config{MaxWorkers: 1, Restart: prefork.RestartOnFailure, Command: []string{"/bin/true"}}, []int{0}, 1, []prefork.Reason{prefork.ReasonFinished}},
		"standby":     {prefork.Config{MaxWorkers: 1, Standby: 1, Restart: prefork.RestartNever}, []int{0, 0}, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				start := exitAfter(test.codes...)
				r = newRig(t, test.cfg, func(p *proctest.Process) {
					if test.cfg.Standby > 0 && len(r.fake.Started()) > 0 {
						return // the standby
					}
					start(p)
				}, nil)
				if err := r.Run(context.Background(), noWork); err != nil {
					t.Errorf("Run = %v", err)
				}
				if n := len(r.fake.Started()); n != test.workers {
					t.Errorf("%d workers, want %d", n, test.workers)
				}
				// Workers that exit at one time are reaped in any order.
				slices.SortFunc(r.exits, func(a, b prefork.Exit) int { return a.Ordinal - b.Ordinal })
				for i, want := range test.reasons {
					if got := r.exits[i].Reason; got != want {
						t.Errorf("worker %d was %v, want %v", i+1, got, want)
					}
				}
				if n := countEvents[prefork.DoneEvent](r); n != test.cfg.MaxWorkers || r.count("manager ended") != 1 || r.count("every slot is done") != 1 {
					t.Errorf("%d slots are done; events: %s", n, strings.Join(r.eventLog(), "\n"))
				}
				if err := r.Run(context.Background(), noWork); err != nil || len(r.fake.Started()) == test.workers {
					t.Errorf("Run again = %v, with no further worker", err)
				}
			})
		})
	}
}

// A loop of Start ends by its usual condition, too. A reload replaces the workers
// that there are, and wakes no slot that is done.
func TestStartEndsWhenAllAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, Restart: prefork.RestartNever, TrapSignals: hupAndTerm}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Second)
		r.process(1).Exit(proc.Status{})
		time.Sleep(time.Second)
		if s := r.Snapshot(); !s.Slots[0].Done || s.Slots[1].Done || !s.Settled {
			t.Errorf("slots %+v, settled %t", s.Slots, s.Settled)
		}
		r.Deliver(hup)
		time.Sleep(time.Second)
		r.wantSignals(2, term)
		r.wantWorkers("after the reload", 1)
		r.process(3).Exit(proc.Status{Code: 1})
		<-done
	})
}

// A rolling reload with a slot that is done has an outcome.
func TestReloadWithClosedSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, Restart: prefork.RestartOnFailure}, nil, nil)
		r.Hold(1)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.process(1).Exit(proc.Status{})
		time.Sleep(time.Second)
		if gen, err := r.Reload(context.Background(), prefork.Forward{}); gen != 2 || err != nil {
			t.Errorf("Reload = %d, %v", gen, err)
		}
		if got := len(r.fake.Started()); got != 3 {
			t.Errorf("%d workers, want 2 and a replacement", got)
		}
		r.Shutdown()
		<-done
	})
}

// The slot of a hook's Hold and Release is closed or open before the next spawn.
func TestHoldInHooks(t *testing.T) {
	type hook = func(m *prefork.Manager, ordinal int)
	hold := func(m *prefork.Manager, _ int) { m.Hold(0) }
	for name, test := range map[string]struct {
		set  func(*prefork.Config, hook)
		do   hook
		want int // workers
	}{
		"OnChildReap": {func(c *prefork.Config, f hook) {
			c.OnChildReap = func(m *prefork.Manager, e prefork.Exit) { f(m, e.Ordinal) }
		}, hold, 1},
		"AfterSpawn": {func(c *prefork.Config, f hook) {
			c.AfterSpawn = func(m *prefork.Manager, _ int) { f(m, 1) }
		}, hold, 1},
		"BeforeSpawn": {func(c *prefork.Config, f hook) {
			c.BeforeSpawn = func(m *prefork.Manager, s *prefork.Spawn) { f(m, s.Ordinal) }
		}, hold, 0},
		"BeforeSpawn, released again": {func(c *prefork.Config, f hook) {
			c.BeforeSpawn = func(m *prefork.Manager, s *prefork.Spawn) { f(m, s.Ordinal) }
		}, func(m *prefork.Manager, ordinal int) {
			if m.Hold(0); ordinal < 3 {
				m.Release(0)
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1}
				test.set(&cfg, test.do)
				r := newRig(t, cfg, exitAfter(0), nil)
				done := r.startLoop()
				time.Sleep(time.Minute)
				if n := len(r.fake.Started()); n != test.want {
					t.Errorf("%d workers, want %d", n, test.want)
				}
				if s := r.Snapshot(); !s.Slots[0].Held || countEvents[prefork.HoldEvent](r) == 0 {
					t.Errorf("slots %+v; events: %q", s.Slots, r.eventLog())
				}
				r.Shutdown()
				<-done
			})
		})
	}
}

// A program that has something to do between two workers holds the slot meanwhile,
// and the backoff counts from the last spawn all the same.
func TestUnhold(t *testing.T) {
	for name, test := range map[string]struct{ meanwhile, want time.Duration }{
		"shorter than the delay": {4 * time.Second, 10 * time.Second},
		"longer":                 {12 * time.Second, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var spawned []time.Time
				r := newRig(t, prefork.Config{MaxWorkers: 1, Backoff: []time.Duration{10 * time.Second},
					AfterSpawn: func(*prefork.Manager, int) { spawned = append(spawned, time.Now()) },
					OnChildReap: func(m *prefork.Manager, _ prefork.Exit) {
						m.Hold(0)
						time.AfterFunc(test.meanwhile, func() { m.Unhold(0) })
					},
				}, nil, nil)
				r.Hold(0)
				r.Unhold(0)
				done := r.startRun(context.Background())
				time.Sleep(time.Millisecond)
				r.process(1).Exit(proc.Status{Code: 1})
				time.Sleep(time.Minute)
				r.Shutdown()
				<-done
				if len(spawned) != 2 || spawned[1].Sub(spawned[0]).Round(10*time.Millisecond) != test.want {
					t.Errorf("spawned at %v, want two with %v between them", spawned, test.want)
				}
			})
		})
	}
}

// A slot that is done is released by a hook, before the Manager ends for it.
func TestReleaseOfTheLastSlotInAHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		left := 2
		r = newRig(t, prefork.Config{MaxWorkers: 1, Restart: prefork.RestartNever, Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.DoneEvent); ok && left > 0 {
				left--
				r.Release(ev.Slot)
			}
		}}, exitAfter(0), nil)
		if err := r.Run(context.Background(), noWork); err != nil || len(r.fake.Started()) != 3 {
			t.Errorf("Run = %v after %d workers, want 3", err, len(r.fake.Started()))
		}
	})
}

// Hold and Release have effect from any goroutine, also before Run; a rolling
// reload replaces the worker of a held slot.
func TestHoldAndRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}}, BeforeSpawn: func(m *prefork.Manager, s *prefork.Spawn) {
			if s.Slot == 0 {
				m.Hold(0) // while it is held already
			}
		}}, nil, nil)
		r.Hold(1)
		r.Hold(0)
		r.Release(0)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.wantWorkers("with slot 1 held, and 0 by the hook", 0)
		r.Release(1)
		r.wantWorkers("after the release", 1)
		r.Hold(1)
		r.Deliver(hup)
		time.Sleep(10 * time.Second)
		if s := r.Snapshot(); len(s.Workers) != 1 || s.Workers[0].Generation != 2 || s.Workers[0].Slot != 1 {
			t.Errorf("after the roll: %v", s)
		}
		r.process(2).Exit(proc.Status{Code: 1})
		time.Sleep(time.Minute)
		r.wantWorkers("after the end in a held slot", 0)
		if held := slices.DeleteFunc(r.Snapshot().Slots, func(s prefork.SlotInfo) bool { return !s.Held }); len(held) != 2 {
			t.Errorf("held: %+v", held)
		}
		r.Shutdown()
		<-done
	})
}
