//go:build unix

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// outcome is the answer to a command, once it is there.
type outcome struct {
	n   int
	err error
	at  time.Time
}

// command calls f in a goroutine.
func command(f func() (int, error)) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		n, err := f()
		done <- outcome{n, err, time.Now()}
	}()
	return done
}

func (r *rig) reload(f prefork.Forward) <-chan outcome {
	return command(func() (int, error) { return r.Reload(context.Background(), f) })
}

// pending fails if a command was answered.
func pending(t *testing.T, when string, done <-chan outcome) {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-done:
		t.Errorf("%s: answered with %d, %v", when, o.n, o.err)
	default:
	}
}

// answered compares the answer of a command, which must be there. part is a part of
// the error, "" for none.
func answered(t *testing.T, when string, done <-chan outcome, n int, part string) {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-done:
		if o.n != n || (o.err == nil) != (part == "") || o.err != nil && !strings.Contains(o.err.Error(), part) {
			t.Errorf("%s: %d, %v; want %d, %q", when, o.n, o.err, n, part)
		}
	default:
		t.Errorf("%s: no answer", when)
	}
}

// A reload is answered when its generation is in place, when that has failed, and
// when Config.Reload has.
func TestReloadCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reloadErr error
		var dies atomic.Bool
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Reload: func() ([]byte, error) { return nil, reloadErr }}, func(p *proctest.Process) {
			if dies.Load() {
				time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 3}) })
				return
			}
			reachStart(p)
		}, nil)
		early := r.reload(prefork.Forward{})
		pending(t, "before Run", early)
		done := r.startRun(t.Context())
		time.Sleep(10 * boot)
		answered(t, "early", early, 2, "")
		time.Sleep(10 * time.Second)

		rolling := r.reload(prefork.Forward{})
		pending(t, "while the first starts", rolling)
		time.Sleep(boot)
		pending(t, "while the second starts", rolling)
		time.Sleep(boot)
		answered(t, "rolling", rolling, 3, "")
		time.Sleep(10 * time.Second)

		plain := r.reload(prefork.Forward{Signal: term})
		synctest.Wait()
		if c := r.Snapshot().Change; c == nil || c.Kind != "restart" {
			t.Errorf("%+v", c)
		}
		time.Sleep(boot)
		answered(t, "plain", plain, 4, "")

		staggered := r.reload(prefork.Forward{Interval: time.Second})
		synctest.Wait()
		if c := r.Snapshot().Change; c == nil || c.Kind != "reload" {
			t.Errorf("%+v", c)
		}
		time.Sleep(time.Second)
		pending(t, "staggered", staggered)
		time.Sleep(boot)
		answered(t, "staggered", staggered, 5, "")

		reloadErr = errors.New("a typo")
		answered(t, "Reload fails", r.reload(prefork.Forward{}), 6, "a typo")
		reloadErr = nil
		dies.Store(true)
		failing := r.reload(prefork.Forward{})
		time.Sleep(boot)
		answered(t, "the generation fails", failing, 6, "generation 6 failed, keeping generation 5: worker 1073741833 (slot 0) crashed: exit code 3 after 1ms")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		crashing := command(func() (int, error) { return r.Reload(ctx, prefork.Forward{Signal: term}) })
		time.Sleep(time.Second)
		answered(t, "ctx ends", crashing, 0, "deadline exceeded")
		if r.Snapshot().Change == nil {
			t.Error("the reload has ended with its caller")
		}
		dies.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if now := r.Snapshot(); !now.Settled || now.LastReload.Generation != 7 || now.LastReload.Err != nil {
			t.Errorf("%+v", now)
		}
		waits := r.reload(prefork.Forward{Interval: time.Hour})
		pending(t, "for an hour", waits)
		r.Deliver(term)
		answered(t, "a shutdown", waits, 8, "the Manager shuts down")
		<-done
		answered(t, "after the end", r.reload(prefork.Forward{}), 0, "the Manager shuts down")
	})
}

// Two reloads at once are one. One that differs, and a signal, supersede it, and all
// have the outcome of the last one.
func TestReloadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reloads := 0
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup, Reload: func() ([]byte, error) { reloads++; return nil, nil }}, nil, nil)
		a, b := r.reload(prefork.Forward{}), r.reload(prefork.Forward{Rolling: true})
		c := r.reload(prefork.Forward{Rolling: true, Signal: term})
		synctest.Wait()
		done := r.startRun(t.Context())
		time.Sleep(time.Second)
		for _, done := range []<-chan outcome{a, b, c} {
			answered(t, "at once", done, 2, "")
		}
		if reloads != 2 {
			t.Errorf("Reload was called %d times, want 2", reloads)
		}

		a = r.reload(prefork.Forward{})
		synctest.Wait()
		b = r.reload(prefork.Forward{Signal: term})
		synctest.Wait()
		r.Deliver(hup)
		time.Sleep(10 * boot)
		answered(t, "superseded", a, 5, "")
		answered(t, "superseded", b, 5, "")
		r.Deliver(term)
		<-done
	})
}

// A reload that is asked for after the configuration was changed reads the change,
// also while one is under way that may have read it before. All that wait for its end
// are one more.
func TestReloadDuringReload(t *testing.T) {
	rolling, plain := prefork.Forward{Rolling: true}, prefork.Forward{Signal: term}
	for _, tt := range []struct {
		name    string
		begin   func(*rig)      // begins the one under way
		how     prefork.Forward // of those that come then
		old     string          // the configuration that it reads
		then    func(*rig)
		atOnce  bool // there is one, which does not wait for its end
		ends    bool // two wait, and its end comes early
		want    int  // their generation
		wantErr string
	}{
		{name: "the same", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "good", want: 3},
		{name: "the same, plain", begin: func(r *rig) { r.reload(plain) }, how: plain, old: "good", want: 3},
		{name: "that of a signal", begin: func(r *rig) { r.Deliver(hup) }, how: rolling, old: "good", want: 3},
		{name: "another way", begin: func(r *rig) { r.reload(plain) }, how: rolling, old: "good", atOnce: true, want: 3},
		{name: "in Config.Reload", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "slow", want: 3},
		{name: "Config.Reload fails", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "typo", ends: true, want: 2},
		{name: "the generation fails", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "crash", atOnce: true, want: 3},
		{name: "its workers crash", begin: func(r *rig) { r.reload(plain) }, how: plain, old: "crash", atOnce: true, want: 3},
		{name: "its workers cannot start", begin: func(r *rig) { r.reload(plain) }, how: plain, old: "no spawn", atOnce: true, want: 3},
		{name: "its program is busy", begin: func(r *rig) { r.reload(plain) }, how: plain, old: "busy", atOnce: true, want: 3},
		{name: "then a signal", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "good", then: func(r *rig) { r.Deliver(hup) }, ends: true, want: 3},
		{name: "then another way", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "good", then: func(r *rig) { r.reload(plain) }, ends: true, want: 4},
		{name: "then a shutdown", begin: func(r *rig) { r.reload(rolling) }, how: rolling, old: "good", then: func(r *rig) { r.Deliver(term) }, want: 0, wantErr: "shuts down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				var config atomic.Value
				var loads atomic.Int32
				config.Store("good")
				cfg := prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Reload: func() ([]byte, error) {
					loads.Add(1)
					switch config.Load() {
					case "slow":
						time.Sleep(boot)
					case "typo":
						time.Sleep(boot / 2)
						return nil, errors.New("a typo")
					case "no spawn":
						r.fake.FailNext(1, syscall.ENOENT)
					case "busy": // for ever, if no other file is written
						r.fake.FailNext(1, syscall.ETXTBSY)
					}
					return nil, nil
				}}
				r = newRig(t, cfg, func(p *proctest.Process) {
					if config.Load() == "crash" {
						p.Exit(proc.Status{Code: 3})
						return
					}
					reachStart(p)
				}, nil)
				done := r.startRun(t.Context())
				time.Sleep(10 * time.Second)
				config.Store(tt.old)
				tt.begin(r)
				synctest.Wait()
				config.Store("new")
				calls := []<-chan outcome{r.reload(tt.how)}
				if !tt.atOnce {
					time.Sleep(boot / 4)
					calls = append(calls, r.reload(tt.how))
				}
				if tt.then != nil {
					synctest.Wait()
					tt.then(r)
				}
				time.Sleep(boot / 2)
				if early := loads.Load() > 2; early != (tt.atOnce || tt.ends) {
					t.Errorf("Reload was called %d times before the end of the first", loads.Load())
				}
				time.Sleep(10 * time.Second)
				for _, call := range calls {
					answered(t, "during it", call, tt.want, tt.wantErr)
				}
				want := max(2, tt.want)
				if tt.old == "typo" {
					want = 3
				}
				if loads := int(loads.Load()); loads != want {
					t.Errorf("Reload was called %d times, want %d", loads, want)
				}
				r.Deliver(term)
				<-done
			})
		})
	}
}

// A generation that fails takes the pool back to an older one. That is the end also of
// a reload to another generation which has begun since, or before it.
func TestReloadWithoutItsGeneration(t *testing.T) {
	t.Run("superseded by a staggered one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup}, nil, nil)
			done := r.startRun(t.Context())
			time.Sleep(10 * time.Second)
			rolling := r.reload(prefork.Forward{})
			time.Sleep(boot)
			staggered := r.reload(prefork.Forward{Interval: time.Hour})
			synctest.Wait()
			next := r.reload(prefork.Forward{Interval: time.Hour})
			time.Sleep(boot)
			pending(t, "before the failure", staggered)
			r.process(3).Exit(proc.Status{Code: 3})
			for _, call := range []<-chan outcome{rolling, staggered} {
				answered(t, "staggered", call, 2, "generation 2 failed, keeping generation 1")
			}
			pending(t, "the next", next)
			if g := r.Snapshot().Generation; g != 4 {
				t.Errorf("generation %d runs, want that of the next reload", g)
			}
			r.Deliver(term)
			<-done
		})
	})
	t.Run("in a Start loop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup}, nil, nil)
			done := r.startLoop()
			time.Sleep(10 * time.Second)
			rolling := r.reload(prefork.Forward{})
			synctest.Wait()
			r.Deliver(usr1) // another Start begins generation 3
			time.Sleep(boot)
			next := r.reload(prefork.Forward{})
			pending(t, "the next", next)
			r.process(4).Exit(proc.Status{Code: 3})
			answered(t, "rolling", rolling, 3, "generation 3 failed, keeping generation 1")
			time.Sleep(time.Second)
			answered(t, "the next", next, 4, "")
			r.Deliver(term)
			<-done
		})
	})
}

// What replaces nothing is no reload. The zero Forward is the table's, if that
// replaces the workers.
func TestReloadForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			table prefork.Signals
			want  prefork.SignalEvent
		}{
			{prefork.Signals{term: {Signal: term}}, prefork.SignalEvent{Sent: term, Rolling: true}},
			{prefork.Signals{term: {Signal: syscall.SIGQUIT}, hup: {Signal: usr1}}, prefork.SignalEvent{Sent: syscall.SIGQUIT, Rolling: true}},
			{prefork.Signals{term: {Signal: term}, hup: {Signal: term}}, prefork.SignalEvent{Sent: term}},
			{prefork.Signals{term: {Signal: term}, hup: {Signal: term, Interval: time.Second}}, prefork.SignalEvent{Sent: term, Interval: time.Second}},
		} {
			var got prefork.SignalEvent
			r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: tt.table, Observe: func(ev prefork.Event) {
				if ev, ok := ev.(prefork.SignalEvent); ok && got.Received == nil {
					got = ev
				}
			}}, nil, func(p *proctest.Process, sig syscall.Signal) { p.Exit(proc.Status{}) })
			done := r.startRun(t.Context())
			time.Sleep(time.Second)
			answer := r.reload(prefork.Forward{})
			time.Sleep(time.Minute)
			answered(t, fmt.Sprint(tt.table), answer, 2, "")
			want := tt.want
			want.Received, want.Replaces, want.Origin = prefork.Request("reload"), true, "Manager.Reload was called"
			if got != want || !strings.HasPrefix(got.String(), "reload requested, ") {
				t.Errorf("%v: %+v %v, want %+v", tt.table, got, got, want)
			}
			for _, bad := range []prefork.Forward{{Upgrade: true}, {Signal: usr1}, {Rolling: true, Interval: 1}, {Interval: -1}, {Rolling: true, Signal: prefork.Request("x")}} {
				if gen, err := r.Reload(t.Context(), bad); gen != 0 || err == nil || !strings.HasPrefix(err.Error(), "prefork: Reload: ") {
					t.Errorf("%+v: %d, %v", bad, gen, err)
				}
			}
			r.Shutdown()
			<-done
		}
	})
}

// In a Start loop, Start returns with the Request, and the next one begins the
// generation.
func TestCommandsInStartLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup}, nil, nil)
		done := make(chan struct{})
		var received []string
		go func() {
			defer close(done)
			for r.SignalReceived() != term {
				r.Start()
				received = append(received, fmt.Sprint(r.SignalReceived()))
				time.Sleep(time.Second)
			}
			r.WaitAllChildren(t.Context())
		}()
		time.Sleep(time.Second)
		reload := r.reload(prefork.Forward{})
		pending(t, "between two calls", reload)
		if c := r.Snapshot().Change; c == nil || c.Generation != 2 {
			t.Errorf("%+v", c)
		}
		time.Sleep(time.Second + boot)
		answered(t, "reload", reload, 2, "")
		newRig(t, prefork.Config{}, nil, nil)
		refused := command(func() (int, error) { return r.RequestUpgrade(t.Context()) })
		answered(t, "refused", refused, 0, "several Managers")
		r.Deliver(term)
		<-done
		if want := []string{"reload", "terminated"}; !slices.Equal(received, want) {
			t.Errorf("Start returned with %q, want %q", received, want)
		}
	})
}

// A command that WaitAllChildren finds is refused, and later ones until the next
// Start.
func TestCommandsInWaitAllChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup}, nil, nil)
		r.Deliver(usr1)
		r.Start()
		waiting := r.reload(prefork.Forward{})
		pending(t, "between two calls", waiting)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.WaitAllChildren(ctx)
		answered(t, "waiting", waiting, 0, "WaitAllChildren")
		answered(t, "later", r.reload(prefork.Forward{}), 0, "WaitAllChildren")
		go func() { time.Sleep(time.Second); r.Deliver(term) }()
		again := command(func() (int, error) {
			time.Sleep(10 * boot)
			return r.Reload(context.Background(), prefork.Forward{})
		})
		r.Start()
		r.WaitAllChildren(t.Context())
		answered(t, "in the next Start, before WaitAllChildren", again, 3, "WaitAllChildren")
	})
}

// RequestUpgrade is answered with the successor's pid when that has taken over, or
// with the reason of its failure. One that is asked for while one is under way does
// not join it: the program on disk may have been replaced again.
func TestRequestUpgrade(t *testing.T) {
	alone(t, func(t *testing.T) {
		var works atomic.Bool
		r := successorRig(t, prefork.Config{UpgradeTimeout: time.Minute}, func(p *proctest.Process) {
			time.AfterFunc(time.Second, func() {
				if works.Load() {
					send(p, wire.Ready{})
				} else {
					send(p, wire.Failed{Reason: "so it is"})
				}
			})
		})
		upgrade := func() <-chan outcome {
			return command(func() (int, error) { return r.RequestUpgrade(context.Background()) })
		}
		done := r.startRun(t.Context())
		time.Sleep(time.Second)
		a := upgrade()
		synctest.Wait()
		now := r.Snapshot()
		if c := now.Change; c == nil || c.Kind != "upgrade" || c.Successor != r.successors()[0].Pid() || time.Until(c.Deadline) != time.Minute || !now.Settled {
			t.Errorf("%+v", now.Change)
		}
		b, c := upgrade(), upgrade()
		time.Sleep(time.Second)
		answered(t, "failed", a, 0, "so it is")
		pending(t, "the next one", b)
		pending(t, "the next one", c)
		if last := r.Snapshot().LastUpgrade; last == nil || last.Err == nil || last.Ended.Sub(last.Began) != time.Second {
			t.Errorf("%+v", last)
		}
		works.Store(true)
		time.Sleep(500 * time.Millisecond)
		late := upgrade()
		pending(t, "before the takeover", b)
		time.Sleep(500 * time.Millisecond)
		answered(t, "took over", b, r.successors()[1].Pid(), "")
		answered(t, "took over", c, r.successors()[1].Pid(), "")
		answered(t, "during an upgrade that took over", late, 0, "has taken over")
		if last := r.Snapshot().LastUpgrade; last == nil || last.Err != nil || len(r.successors()) != 2 {
			t.Errorf("%+v, %d successors", last, len(r.successors()))
		}
		answered(t, "again", upgrade(), 0, "has taken over")
		<-done
	})
}

// ReplaceWorker has a replacement ready first. It fails with the first replacement
// that does, and if there is no such worker.
func TestReplaceWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dies atomic.Bool
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup}, func(p *proctest.Process) {
			if dies.Load() {
				time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 3}) })
				return
			}
			reachStart(p)
		}, nil)
		replace := func(ordinal int) <-chan outcome {
			return command(func() (int, error) { return ordinal, r.ReplaceWorker(context.Background(), ordinal) })
		}
		answered(t, "before Run", replace(1), 1, "no worker with ordinal 1")
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		a, b := replace(2), replace(2)
		pending(t, "while it starts", a)
		r.wantSignals(2)
		time.Sleep(boot)
		answered(t, "replaced", a, 2, "")
		answered(t, "the same", b, 2, "")
		r.wantSignals(2, term)
		r.wantSignals(1)
		var none *prefork.NoWorkerError
		if err := r.ReplaceWorker(t.Context(), 2); !errors.As(err, &none) || none.Ordinal != 2 {
			t.Error(err)
		}

		young := replace(3)
		time.Sleep(500 * time.Millisecond)
		pending(t, "a young one", young)
		time.Sleep(time.Second)
		answered(t, "a second after its start", young, 3, "")

		dies.Store(true)
		failed := replace(1)
		time.Sleep(boot)
		answered(t, "failed", failed, 1, "crashed: exit code 3")
		r.wantSignals(1)
		dies.Store(false)
		time.Sleep(time.Minute)
		r.wantSignals(1, term) // the Manager has tried again
		r.fake.FailNext(1, syscall.EAGAIN)
		answered(t, "spawn fails", replace(4), 4, "cannot spawn")
		time.Sleep(time.Minute)
		synctest.Wait()

		last := r.Snapshot().Workers[1].Ordinal
		gone := replace(last)
		pending(t, "while it starts", gone)
		r.SetMaxWorkers(1)
		synctest.Wait()
		answered(t, "its slot is closed", gone, last, "needs no worker")
		first := r.Snapshot().Workers[0].Ordinal
		waits := replace(first)
		pending(t, "while it starts", waits)
		r.Deliver(term)
		answered(t, "a shutdown", waits, first, "shuts down")
		<-done
	})
}

// SignalWorker signals one worker, by its ordinal. The stop signal stops it, and it
// is replaced.
func TestSignalWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, func(p *proctest.Process) {
			if p.ID != 3 {
				reachStart(p)
			}
		}, nil)
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		signal := func(ordinal int, sig syscall.Signal) {
			t.Helper()
			if err := r.SignalWorker(ordinal, sig); err != nil {
				t.Error(err)
			}
		}
		signal(2, usr1)
		r.wantSignals(2, usr1)
		r.wantSignals(1)
		signal(2, term)
		r.wantSignals(2, usr1, term)
		r.wantWorkers("after a stop", 2)
		signal(3, usr1)
		r.wantSignals(3) // it is starting
		signal(3, kill)
		r.wantSignals(3, kill)
		var none *prefork.NoWorkerError
		if err := r.SignalWorker(2, usr1); !errors.As(err, &none) || none.Ordinal != 2 {
			t.Error(err)
		}
		if got := panics(func() { r.SignalWorker(1, prefork.Request("reload")) }); !strings.Contains(got, "not a signal of the system") {
			t.Error(got)
		}
		r.Deliver(term)
		<-done
		if r.exits[0].Reason != prefork.ReasonStopped || r.exits[1].Reason != prefork.ReasonStopped {
			t.Errorf("%+v", r.exits)
		}
	})
}

// While a reload goes on, a second one whose Config.Reload fails ends alone, whether
// a signal or another caller has asked for it.
func TestSecondReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reloadErr error
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Reload: func() ([]byte, error) { return nil, reloadErr }}, nil, nil)
		done := r.startRun(t.Context())
		time.Sleep(10 * time.Second)
		first := r.reload(prefork.Forward{})
		synctest.Wait()
		reloadErr = errors.New("a typo")
		answered(t, "the second", r.reload(prefork.Forward{Signal: term}), 3, "a typo")
		r.Deliver(hup)
		pending(t, "the first", first)
		if now := r.Snapshot(); now.Settled || now.Change == nil || now.Change.Generation != 2 || now.LastReload == nil || now.LastReload.Err == nil {
			t.Errorf("%+v, %+v", now.Change, now.LastReload)
		}
		time.Sleep(2 * boot)
		answered(t, "the first", first, 2, "")
		if now := r.Snapshot(); !now.Settled || now.Change != nil || now.LastReload.Err != nil {
			t.Errorf("%+v, %+v", now.Change, now.LastReload)
		}
		r.Deliver(term)
		<-done
	})
}

func (r *rig) replace(ordinal int) <-chan outcome {
	return command(func() (int, error) { return ordinal, r.ReplaceWorker(context.Background(), ordinal) })
}

// A worker that exits before it is replaced may have a standby in its slot that was
// started before it. That is the replacement, also if it fails.
func TestReplaceWorkerByOlderStandby(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1, Standby: 1, TrapSignals: rollingHup}, func(p *proctest.Process) {
				if p.ID == 2 { // worker 3 is spawned before it parks
					time.AfterFunc(5500*time.Millisecond, func() { send(p, wire.Parked{}) })
					return
				}
				reachStart(p)
			}, nil)
			done := r.startRun(t.Context())
			time.Sleep(5 * time.Second)
			r.process(1).Exit(proc.Status{})
			time.Sleep(600 * time.Millisecond)
			replaced := r.replace(3)
			pending(t, "a young one", replaced)
			r.process(3).Exit(proc.Status{Code: 1})
			time.Sleep(5 * time.Second)
			pending(t, "while the standby starts", replaced)
			if fails {
				r.process(2).Exit(proc.Status{Code: 3})
				answered(t, "the standby fails", replaced, 3, "exit code 3")
			} else {
				send(r.process(2), wire.Ready{})
				answered(t, "the standby is ready", replaced, 3, "")
			}
			r.Deliver(term)
			<-done
		})
	}
}

// A command that was refused before the loop has turned does nothing.
func TestReplaceWorkerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}}}, nil, nil)
		go func() {
			time.Sleep(time.Minute)
			r.Deliver(usr1)
		}()
		r.Start()
		waiting := r.replace(1)
		pending(t, "between two calls", waiting)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.WaitAllChildren(ctx)
		answered(t, "refused", waiting, 1, "WaitAllChildren")
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantSignals(1)
		if n := len(r.fake.Started()); n != 1 {
			t.Errorf("%d workers were started", n)
		}
		r.Deliver(term)
		<-done
	})
}

// The time in which the manager was frozen does not count for the deadline of an
// upgrade, also in the Snapshot.
func TestUpgradeDeadlineAfterFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRigWith(t, prefork.Config{UpgradeTimeout: time.Minute}, nil, options{
			wrap: func(p *proctest.Process) proc.Process {
				if isSuccessor(t, p) {
					return nil
				}
				return frozenProcess{p}
			},
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		began := time.Now()
		upgrade := command(func() (int, error) { return r.RequestUpgrade(context.Background()) })
		synctest.Wait()
		if d := r.Snapshot().Change.Deadline.Sub(began); d != time.Minute {
			t.Errorf("the deadline is in %v", d)
		}
		if err := r.SignalWorker(1, term); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Second)
		if d := r.Snapshot().Change.Deadline.Sub(began); d != 100*time.Second {
			t.Errorf("after 40 s frozen, the deadline is in %v", d)
		}
		time.Sleep(50*time.Second - time.Millisecond)
		pending(t, "before the deadline", upgrade)
		time.Sleep(time.Millisecond)
		answered(t, "at the deadline", upgrade, 0, "was not ready within 1m0s")
		r.Deliver(term)
		<-done
	})
}

// A program may change a Snapshot.
func TestSnapshotIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup}, nil, nil)
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		r.Deliver(hup)
		time.Sleep(time.Minute)
		before := r.Snapshot()
		reload, exit := *before.LastReload, *before.Slots[0].LastExit
		*before.LastReload, *before.Slots[0].LastExit = prefork.Outcome{Generation: 99}, prefork.Exit{Ordinal: 99}
		if u := exit.Usage; u != nil {
			u.Maxrss = 99
		}
		after := r.Snapshot()
		if *after.LastReload != reload || after.Slots[0].LastExit.Ordinal != exit.Ordinal {
			t.Errorf("%+v, %+v", after.LastReload, after.Slots[0].LastExit)
		}
		if u := after.Slots[0].LastExit.Usage; u != nil && u.Maxrss == 99 {
			t.Error("the usage is shared")
		}
		r.Deliver(term)
		<-done
	})
}

// Managers need different names, and the error says which name to set.
func TestNamesOfManagers(t *testing.T) {
	r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, nil)
	_, err := prefork.New(prefork.Config{Name: r.name})
	var bad *prefork.ConfigError
	if !errors.As(err, &bad) || bad.Field != "Name" || !strings.Contains(err.Error(), fmt.Sprintf("named %q", r.name)) || !strings.Contains(err.Error(), "also if its Run has returned") {
		t.Errorf("%v", err)
	}
}

// The name "" is that of one Manager, too.
func TestSecondManagerWithoutAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, r := prefork.Config{Logger: slog.New(slog.DiscardHandler)}, &rig{t: t}
		var err error
		if r.Manager, err = r.newManager(cfg, options{}); err != nil {
			t.Fatal(err)
		}
		defer r.release()
		_, err = r.newManager(cfg, options{})
		if err == nil || !strings.Contains(err.Error(), "without a Name") || !strings.Contains(err.Error(), "give each Manager a Name") || !strings.Contains(err.Error(), "Close the first one") {
			t.Errorf("%v", err)
		}
	})
}
