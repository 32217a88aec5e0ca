//go:build unix

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// follower applies events to a Snapshot.
type follower struct {
	mu   sync.Mutex
	now  prefork.Snapshot
	seqs []uint64
	all  []prefork.Event
}

// follow follows r from now on.
func (r *rig) follow() (f *follower, stop func()) {
	f = new(follower)
	f.mu.Lock() // until the snapshot is there
	now, stop := r.Follow(f.apply)
	f.now = now
	f.mu.Unlock()
	return f, stop
}

func (f *follower) apply(rec prefork.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seqs, f.all = append(f.seqs, rec.Seq), append(f.all, rec.Event)
	if rec.Seq != f.now.Seq+1 {
		panic(fmt.Sprintf("event %d follows %d", rec.Seq, f.now.Seq))
	}
	f.now.Seq = rec.Seq
	switch ev := rec.Event.(type) {
	case prefork.GenerationEvent:
		f.now.Generation = ev.Generation
	case prefork.StateEvent:
		f.now.Workers = slices.DeleteFunc(slices.Clone(f.now.Workers), func(w prefork.WorkerInfo) bool { return w.Ordinal == ev.Worker.Ordinal })
		f.now.Workers = append(f.now.Workers, ev.Worker)
	case prefork.ExitEvent:
		n := len(f.now.Workers)
		f.now.Workers = slices.DeleteFunc(slices.Clone(f.now.Workers), func(w prefork.WorkerInfo) bool { return w.Ordinal == ev.Exit.Ordinal })
		if len(f.now.Workers) != n-1 {
			panic(fmt.Sprintf("worker %d exited, which was not there", ev.Exit.Ordinal))
		}
	}
}

// text describes the state as events tell it.
func text(s prefork.Snapshot) string {
	var all []string
	for _, w := range s.Workers {
		all = append(all, fmt.Sprintf("%d: %v", w.Ordinal, w))
	}
	slices.Sort(all)
	return fmt.Sprintf("event %d, generation %d\n%s", s.Seq, s.Generation, strings.Join(all, "\n"))
}

// A state and the events after it are the state later on, wherever one begins to
// follow: also in a hook, and from another goroutine in the middle of a change.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		var mu sync.Mutex
		var followers []*follower
		begin := func() {
			f, _ := r.follow()
			mu.Lock()
			followers = append(followers, f)
			mu.Unlock()
		}
		cfg := prefork.Config{MaxWorkers: 3, TrapSignals: rollingHup}
		cfg.Observe = func(prefork.Event) { begin() }
		cfg.OnChildReap = func(*prefork.Manager, prefork.Exit) { begin() }
		r = newRig(t, cfg, nil, nil)
		begin()
		stopped := make(chan struct{})
		var other sync.WaitGroup
		other.Go(func() {
			for {
				select {
				case <-stopped:
					return
				case <-time.After(boot / 7):
					begin()
				}
			}
		})
		done := r.startRun(t.Context())
		time.Sleep(10 * boot)
		r.Deliver(hup)
		time.Sleep(10 * boot)
		r.process(4).Exit(proc.Status{Code: 1})
		time.Sleep(10 * boot)
		close(stopped)
		other.Wait()
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := text(r.Snapshot())
		for i, f := range followers {
			if got := text(f.now); got != want {
				t.Errorf("follower %d has\n%s\nand the Manager\n%s", i, got, want)
			}
		}
		first := followers[0]
		if first.now.Seq < 20 || uint64(len(first.seqs)) != first.now.Seq || !reflect.DeepEqual(first.all, r.events) {
			t.Errorf("the first follower got %d events, the last one is number %d, and Observe got %d", len(first.seqs), first.now.Seq, len(r.events))
		}
	})
}

// A function that has stopped to follow is not called again. Times do not go back.
func TestFollowStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: hupAndTerm}, nil, nil)
		f, stop := r.follow()
		last := time.Time{}
		r.Follow(func(rec prefork.Record) {
			if rec.Time.Before(last) || !rec.Time.Equal(time.Now()) {
				t.Errorf("event %d has the time %v after %v", rec.Seq, rec.Time, last)
			}
			last = rec.Time
		})
		done := r.startRun(t.Context())
		time.Sleep(time.Second)
		stop()
		stop()
		n := len(f.seqs)
		r.Deliver(term)
		<-done
		if n == 0 || len(f.seqs) != n {
			t.Errorf("%d events before stop, %d after it", n, len(f.seqs)-n)
		}
	})
	if got := panics(func() { new(prefork.Manager).Follow(nil) }); !strings.Contains(got, "Follow(nil)") {
		t.Error(got)
	}
}

// The Manager reports its start and its end, once each, and starts again after an
// end. ReloadEvent comes before Reload is called.
func TestStartedAndEnded(t *testing.T) {
	names := func(r *rig) string {
		var all []string
		for _, ev := range r.events {
			switch ev := ev.(type) {
			case prefork.StartedEvent, prefork.EndedEvent, prefork.ReloadEvent, prefork.ReloadFailedEvent, prefork.GenerationEvent:
				all = append(all, strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", ev), "prefork."), "Event")))
			case prefork.SignalEvent:
				all = append(all, map[bool]string{true: "replaces", false: "signal"}[ev.Replaces])
			}
		}
		return strings.Join(all, " ")
	}
	check := func(t *testing.T, r *rig, want string) {
		t.Helper()
		if got := names(r); got != want {
			t.Errorf("events %q, want %q", got, want)
		}
	}
	t.Run("Run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var r *rig
			var seen []string
			bad := errors.New("a typo")
			r = newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: usr1}}, Reload: func() ([]byte, error) {
				seen = append(seen, names(r))
				if len(seen) == 2 {
					return nil, bad
				}
				return nil, nil
			}}, nil, nil)
			done := r.startRun(t.Context())
			time.Sleep(time.Second)
			for _, sig := range []syscall.Signal{hup, hup, usr1} {
				r.Deliver(sig)
				time.Sleep(time.Second)
			}
			r.ShutdownWith(bad)
			if err := <-done; err != bad {
				t.Error(err)
			}
			check(t, r, "started generation reload reloadfailed reload replaces generation signal signal ended")
			if want := []string{"started", "started generation reload", "started generation reload reloadfailed reload"}; !slices.Equal(seen, want) {
				t.Errorf("before Reload: %q, want %q", seen, want)
			}
			if last := r.events[len(r.events)-1]; last != (prefork.EndedEvent{Err: bad}) {
				t.Errorf("the last event is %#v", last)
			}
			if ev, ok := r.events[slices.IndexFunc(r.events, func(ev prefork.Event) bool { _, ok := ev.(prefork.ReloadEvent); return ok })].(prefork.ReloadEvent); !ok || ev.Received != hup {
				t.Errorf("%#v", ev)
			}
		})
	})
	t.Run("Start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: hupAndTerm}, nil, nil)
			for range 2 {
				done := r.startLoop()
				time.Sleep(time.Second)
				r.Deliver(hup)
				time.Sleep(time.Second)
				r.Deliver(term)
				<-done
				r.WaitAllChildren(t.Context())
				r.Deliver(hup) // so that the next loop begins
				r.Start()
			}
			check(t, r, strings.Repeat("started generation reload replaces generation signal ended started generation reload replaces ", 1)+
				"generation reload replaces generation signal ended started generation reload replaces")
			r.shutDown()
		})
	})
	t.Run("Reload fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1, Reload: func() ([]byte, error) { return nil, errors.New("a typo") }}, nil, nil)
			err := r.Run(t.Context(), noWork)
			check(t, r, "started ended")
			if ev, ok := r.events[1].(prefork.EndedEvent); !ok || err == nil || ev.Err != err {
				t.Errorf("Run returned %v, and the last event is %#v", err, r.events[1])
			}
		})
	})
	t.Run("no start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, nil)
			r.Deliver(term)
			r.WaitAllChildren(t.Context())
			check(t, r, "signal")
		})
	})
}

// Ping returns when the loop has turned: not while a hook blocks, and not while no
// blocking call is under way. Calls that wait leave nothing behind.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := time.Duration(0)
		r := newRig(t, prefork.Config{MaxWorkers: 1, BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { time.Sleep(hook) }}, nil, nil)
		ping := func(patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return r.Ping(ctx)
		}
		if err := ping(time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before Start: %v", err)
		}
		done := r.startLoop()
		synctest.Wait()
		began := time.Now()
		if err := ping(time.Second); err != nil || time.Since(began) != 0 {
			t.Errorf("while the loop sleeps: %v after %v", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		hook = time.Hour
		r.process(1).Exit(proc.Status{})
		synctest.Wait()
		if err := ping(time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in a hook: %v", err)
		}
		if err := ping(2 * time.Hour); err != nil {
			t.Errorf("after the hook: %v", err)
		}
		r.Deliver(term)
		<-done
		if err := ping(time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Notes are events, in the order of the calls, and one line each.
func TestNote(t *testing.T) {
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
		r.Note("user 1000 (pid 4711)", "reload")
		r.Note("", "a\nforged line")
		if n := len(r.events); n != 0 {
			t.Errorf("%d events before the loop turns", n)
		}
		done := r.startLoop()
		time.Sleep(time.Second)
		r.Note("x", "later")
		r.Deliver(term)
		<-done
		var notes []string
		for _, ev := range r.events {
			if ev, ok := ev.(prefork.NoteEvent); ok {
				notes = append(notes, ev.String())
			}
		}
		if want := []string{"reload, asked for by user 1000 (pid 4711)", "a forged line", "later, asked for by x"}; !slices.Equal(notes, want) {
			t.Errorf("notes %q, want %q", notes, want)
		}
	})
	if !strings.Contains(log.String(), `msg=note pool=TestNote/`) || !strings.Contains(log.String(), `text=reload by="user 1000 (pid 4711)"`) {
		t.Errorf("log:\n%s", &log)
	}
}

// Config has the defaults, and is a copy.
func TestConfigOf(t *testing.T) {
	given := prefork.Config{
		TrapSignals: prefork.Signals{term: {Signal: syscall.SIGQUIT}}, Standby: 1, Name: "replaced by the rig",
		Resources: prefork.Resources{CPUs: []int{0}, Rlimits: []prefork.Rlimit{{Resource: prefork.RlimitNofile, Soft: 64}}},
	}
	r := newRig(t, given, nil, nil)
	c := r.Config()
	if c.Name != r.name || c.MaxWorkers != 10 || c.MaxSurge != 1 || c.StopTimeout != 30*time.Second || c.ErrRespawnInterval != time.Second ||
		c.Readiness.Timeout != time.Minute || c.UpgradeTimeout != time.Minute || c.OrphanTimeout != time.Second || c.CrashLoop.Window != time.Minute ||
		c.ShutdownSignal != term || c.Logger == nil || c.MaxSpareWorkers != 0 || c.Standby != 1 {
		t.Errorf("%+v", c)
	}
	c.TrapSignals[hup], c.Resources.CPUs[0], c.Resources.Rlimits[0].Soft, c.MaxWorkers = prefork.Forward{}, 7, 1, 99
	if d := r.Config(); len(d.TrapSignals) != 1 || d.TrapSignals[term].Signal != syscall.SIGQUIT || d.Resources.CPUs[0] != 0 || d.Resources.Rlimits[0].Soft != 64 || d.MaxWorkers != 10 {
		t.Errorf("a change of the copy has changed the Manager's: %+v", d)
	}
	if pid := prefork.ReaperPID(); pid != 0 {
		t.Errorf("ReaperPID() = %d", pid)
	}
}

// BenchmarkEvent measures an event: without a follower, and with some. Its line in
// the log is made, formatted and discarded.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{0, 1, 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newRigWith(b, prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(discard{}, nil)), TrapSignals: prefork.Signals{term: {Signal: term}}}, options{unobserved: true})
			events := 0
			for range n {
				m.Follow(func(prefork.Record) { events++ })
			}
			done := m.startRun(b.Context())
			b.ReportAllocs()
			for b.Loop() {
				for range 100 {
					m.Note("user 1000 (pid 4711)", "reload")
				}
				m.Ping(context.Background())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
			m.Shutdown()
			<-done
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Ping returns after the loop has acted on the signals that came before it.
func TestPingAfterSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocked := make(chan struct{})
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {Signal: usr1}, usr2: {Signal: usr2}}, Observe: func(ev prefork.Event) {
			if _, ok := ev.(prefork.SignalEvent); ok {
				<-blocked
			}
		}}, nil, nil)
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		r.Deliver(usr1)
		r.Deliver(usr2)
		ping := command(func() (int, error) { return 0, r.Ping(context.Background()) })
		pending(t, "at the first signal", ping)
		blocked <- struct{}{}
		pending(t, "at the second", ping)
		r.Deliver(usr1) // came later
		blocked <- struct{}{}
		answered(t, "after them", ping, 0, "")
		close(blocked)
		r.Deliver(term)
		<-done
	})
}

// frozenProcess freezes the manager while it signals.
type frozenProcess struct{ *proctest.Process }

func (p frozenProcess) SignalGroup(sig syscall.Signal) error {
	if sig == term {
		time.Sleep(40 * time.Second)
	}
	return p.Process.SignalGroup(sig)
}

func (p frozenProcess) Signal(sig syscall.Signal) error {
	if sig == term {
		time.Sleep(40 * time.Second)
	}
	return p.Process.Signal(sig)
}

// A function that follows, or a hook, does not hide that the manager was frozen.
func TestFollowHidesNoFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, prefork.Config{MaxWorkers: 2, StopTimeout: 30 * time.Second}, options{
			onSignal: func(p *proctest.Process, sig syscall.Signal) {
				if sig == kill {
					p.Exit(proc.Status{Signal: kill})
				}
			},
			wrap: func(p *proctest.Process) proc.Process { return frozenProcess{p} },
		})
		r.Follow(func(prefork.Record) {})
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		began := time.Now()
		r.Deliver(term)
		<-done
		if took := time.Since(began); took < 109*time.Second || took > 111*time.Second {
			t.Errorf("the workers were killed after %v, want 80 s frozen and 30 s", took)
		}
	})
}

// The log names a hook that blocks, also if others have run in the time before it.
func TestHookBlocksAfterOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedText
		var blocks atomic.Bool
		r := newRig(t, prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
		r.Follow(func(rec prefork.Record) {
			if note, ok := rec.Event.(prefork.NoteEvent); ok && note.Text == "block" {
				blocks.Store(true)
				time.Sleep(time.Minute)
			}
		})
		done := r.startRun(t.Context())
		for range 30 {
			time.Sleep(900 * time.Millisecond)
			r.Note("", "go on")
		}
		synctest.Wait()
		r.Note("", "block")
		time.Sleep(hookPatience - time.Millisecond)
		synctest.Wait()
		if text := log.String(); !blocks.Load() || strings.Contains(text, "hook blocks") {
			t.Errorf("too early: %s", text)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "hook=Follow"); n != 1 {
			t.Errorf("%d lines name it: %s", n, log.String())
		}
		r.Deliver(term)
		<-done
	})
}

const hookPatience = 5 * time.Second

// A lockedText is a strings.Builder for several goroutines.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
