//go:build unix

package prefork

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// The tests of this file run a Manager on processes that do not exist (proc.Fake), in a bubble in which time passes only
// when everybody waits: what takes seconds in a manager takes none here, and is exact.

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
	usr1 = syscall.SIGUSR1
	kill = syscall.SIGKILL
)

// rig is a Manager with pretended workers.
type rig struct {
	*Manager
	t    *testing.T
	fake *proc.Fake

	mu     sync.Mutex
	events []string
	exits  []Exit
}

// boot is how long a pretended worker takes to reach Start.
const boot = time.Millisecond

// newRig makes a Manager whose workers reach Start after boot and end cleanly on SIGTERM, unless the test says otherwise
// through onStart and onSignal.
func newRig(t *testing.T, cfg Config, onStart func(*proc.FakeProcess), onSignal func(*proc.FakeProcess, syscall.Signal)) *rig {
	t.Helper()
	r := &rig{t: t}
	observe, reap := cfg.Observe, cfg.OnChildReap
	cfg.Observe = func(ev Event) {
		r.mu.Lock()
		r.events = append(r.events, ev.String())
		r.mu.Unlock()
		if observe != nil {
			observe(ev)
		}
	}
	cfg.OnChildReap = func(m *Manager, e Exit) {
		r.mu.Lock()
		r.exits = append(r.exits, e)
		r.mu.Unlock()
		if reap != nil {
			reap(m, e)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	cfg.Name = t.Name()
	m, err := newManager(cfg, func(notify func(proc.Note)) proc.Table {
		r.fake = proc.NewFake(notify)
		r.fake.OnStart = onStart
		if onStart == nil {
			r.fake.OnStart = reachStart
		}
		r.fake.OnSignal = onSignal
		if onSignal == nil {
			r.fake.OnSignal = endOnTerm
		}
		return r.fake
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		self.unregister(cfg.Name)
		m.current.close()
		for _, s := range m.sockets {
			syscall.Close(s.fd)
		}
	})
	r.Manager = m
	return r
}

func reachStart(p *proc.FakeProcess) {
	time.AfterFunc(boot, func() { p.Say(wire.Append(nil, wire.Reached{})) })
}

func endOnTerm(p *proc.FakeProcess, sig syscall.Signal) {
	if sig == term {
		p.Exit(proc.Status{})
	}
}

// startAgain calls Start in a loop until the shutdown signal, and then WaitAllChildren, in a goroutine; the returned
// channel is closed at the end.
func (r *rig) startAgain() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r.SignalReceived() != term {
			r.Start()
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil {
			r.t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
	}()
	return done
}

// wantWorkers compares the number of workers now, once everything that happens at this moment has happened.
func (r *rig) wantWorkers(when string, want int) {
	r.t.Helper()
	synctest.Wait()
	if got := r.NumWorkers(); got != want {
		r.t.Errorf("%s: %d workers, want %d", when, got, want)
	}
}

func (r *rig) eventLog() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *rig) count(part string) (n int) {
	for _, e := range r.eventLog() {
		if strings.Contains(e, part) {
			n++
		}
	}
	return n
}

// worker is the i-th process ever started, from 1: its ordinal.
func (r *rig) process(i int) *proc.FakeProcess { return r.fake.Started()[i-1] }

// wantSignals compares what the i-th worker was sent.
func (r *rig) wantSignals(i int, want ...syscall.Signal) {
	r.t.Helper()
	synctest.Wait()
	if got := r.process(i).Signals(); !slices.Equal(got, want) {
		r.t.Errorf("worker %d was sent %v, want %v", i, got, want)
	}
}

var hupAndTerm = Signals{term: {Signal: term}, hup: {Signal: term}}

// T4: the original's 04-interval.t.
func TestOriginal04Interval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 3, SpawnInterval: time.Second, TrapSignals: Signals{term: {Signal: term, Interval: 2 * time.Second}}}, nil, nil)
		done := r.startAgain()
		for i, want := range []int{1, 2, 3, 3} {
			time.Sleep(time.Second / 2)
			r.wantWorkers(fmt.Sprintf("%d.5 s after the start", i), want)
			time.Sleep(time.Second / 2)
		}
		r.Deliver(term)
		time.Sleep(time.Second / 2)
		r.wantWorkers("0.5 s after TERM", 2)
		time.Sleep(2 * time.Second)
		r.wantWorkers("2.5 s after TERM", 1)
		<-done
	})
}

// T6: the original's 06-wait-all-children-timeout.t.
func TestOriginal06WaitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 30}, nil, func(p *proc.FakeProcess, _ syscall.Signal) {
			if len(p.Signals()) == (int(p.ID)+9)/10 { // worker k ends after ceil(k/10) TERMs
				p.Exit(proc.Status{})
			}
		})
		time.AfterFunc(time.Second, func() { r.Deliver(term) })
		r.Start()
		for _, want := range []int{20, 10} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if left, err := r.WaitAllChildren(ctx); left != want || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("WaitAllChildren = %d, %v; want %d and the end of the time", left, err, want)
			}
			cancel()
			r.SignalAllChildren(term)
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil || r.NumWorkers() != 0 {
			t.Errorf("at last: %d left, %v, NumWorkers %d", left, err, r.NumWorkers())
		}
		if len(r.exits) != 30 {
			t.Errorf("OnChildReap ran %d times, want 30", len(r.exits))
		}
	})
}

// T7: the original's 07-wait-all-children-does-not-block.t.
func TestOriginal07WaitDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := newRig(t, Config{MaxWorkers: 30}, nil, func(p *proc.FakeProcess, _ syscall.Signal) {
			straddle := time.Second + time.Duration(int(p.ID)%3-1)*10*time.Millisecond
			time.AfterFunc(straddle, func() { p.Exit(proc.Status{}) })
		})
		time.AfterFunc(time.Second, func() { r.Deliver(term) })
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.WaitAllChildren(ctx)
		r.WaitAllChildren(context.Background())
		if took := time.Since(began); took >= 5*time.Second || took < 2*time.Second {
			t.Errorf("the whole took %v, want the 2 s that the workers take", took)
		}
	})
}

// P24: HUP with [TERM, 0.5 s] and 4 workers replaces them one by one.
func TestRollingByInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 4, TrapSignals: Signals{term: {Signal: term}, hup: {Signal: term, Interval: time.Second / 2}}}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(hup)
		for i := range 4 {
			synctest.Wait()
			if got := r.count("generation 1) stopped"); got != i+1 {
				t.Errorf("%v after HUP: %d of the old generation ended, want %d", time.Duration(i)*time.Second/2, got, i+1)
			}
			r.wantWorkers("in the roll", 4)
			time.Sleep(time.Second / 2)
		}
		if got := r.count("generation 2) starting"); got != 4 {
			t.Errorf("%d workers of generation 2 were started, want 4", got)
		}
		r.Deliver(term)
		<-done
	})
}

// P25: a signal that is mapped to nothing ends Start, and the workers count on in the next.
func TestSignalMappedToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 3, TrapSignals: Signals{term: {Signal: term}, usr1: {}}}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(usr1)
		time.Sleep(time.Second)
		if r.Generation() != 2 || r.SignalReceived() != usr1 {
			t.Errorf("generation %d after %v, want 2 after SIGUSR1", r.Generation(), r.SignalReceived())
		}
		if n := len(r.fake.Started()); n != 3 {
			t.Errorf("%d workers were spawned, want 3", n)
		}
		r.Deliver(term)
		<-done
	})
}

// D1: what arrives between two calls of Start is kept, and ends the next one at once.
func TestD1SignalBetweenStartsIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: hupAndTerm}, nil, nil)
		time.AfterFunc(time.Second, func() { r.Deliver(hup) })
		r.Start()
		r.Deliver(term) // while the program loads its configuration
		r.Start()
		if r.SignalReceived() != term {
			t.Fatalf("Start returned with %v, want the TERM that waited", r.SignalReceived())
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
		if n := len(r.fake.Started()); n != 2 {
			t.Errorf("%d workers were spawned, want the 2 of the first generation alone", n)
		}
	})
}

// D2: TERM is not lost behind HUP, nor HUP behind another; the shutdown signal goes first, one of each is kept.
func TestD2PendingSignals(t *testing.T) {
	for _, tt := range []struct{ arrive, want []syscall.Signal }{
		{[]syscall.Signal{term, hup}, []syscall.Signal{term, hup}},
		{[]syscall.Signal{hup, term}, []syscall.Signal{term, hup}},
		{[]syscall.Signal{usr1, hup, usr1, term, hup, term}, []syscall.Signal{term, usr1, hup}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{MaxWorkers: 2, TrapSignals: Signals{term: {}, hup: {}, usr1: {}}}, nil, nil)
			for _, sig := range tt.arrive {
				r.Deliver(sig)
			}
			for _, want := range tt.want {
				r.Start()
				if got := r.SignalReceived(); got != want {
					t.Errorf("after %v: Start returned with %v, want %v", tt.arrive, got, want)
				}
			}
		})
	}
}

// D3: a signal ends the wait whenever it comes.
func TestD3NoLostWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: Signals{term: {Signal: term}, usr1: {}}}, nil, nil)
		done := r.startAgain()
		for i := range 200 {
			time.Sleep(time.Duration(i) * time.Microsecond * 37)
			synctest.Wait()
			before := r.Generation()
			r.Deliver(usr1)
			synctest.Wait()
			if r.Generation() != before+1 {
				t.Fatalf("signal %d did not end Start", i)
			}
		}
		r.Deliver(term)
		<-done
	})
}

// D4: five workers that crash 0.9 s apart are each replaced on their own account; those that are well go on.
func TestD4CrashesDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 5}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Hour)
		for i := 1; i <= 5; i++ {
			r.process(i).Exit(proc.Status{Signal: syscall.SIGSEGV})
			r.wantWorkers("after a crash", 5)
			time.Sleep(900 * time.Millisecond)
		}
		if n := len(r.fake.Started()); n != 10 {
			t.Errorf("%d workers spawned, want 10", n)
		}
		r.Deliver(term)
		<-done
	})
}

// D5: the hook gets the true status, in Start and in WaitAllChildren.
func TestD5TrueStatusInBothPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: Signals{term: {}}}, nil, nil)
		end := func() {
			r.process(1).Exit(proc.Status{Code: 3})
			r.process(2).Exit(proc.Status{Signal: kill})
		}
		time.AfterFunc(time.Hour, func() { r.Deliver(term) })
		r.Start()
		time.AfterFunc(time.Second, end)
		r.WaitAllChildren(context.Background())
		want := []ExitStatus{{Code: 3}, {Signal: kill}}
		for i, e := range r.exits {
			if e.Status != want[i] || e.Reason != ReasonCrashed || e.Usage == nil || e.Uptime < time.Hour {
				t.Errorf("exit %d: %+v, want status %v", i, e, want[i])
			}
		}
		if len(r.exits) != 2 {
			t.Errorf("%d exits, want 2", len(r.exits))
		}
	})
}

// D6: a staggered signal to no workers does nothing.
func TestD6StaggeredSignalToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{TrapSignals: Signals{term: {Signal: term}, hup: {Signal: term, Interval: time.Second}}}, nil, nil)
		r.SetMaxWorkers(0)
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(hup)
		time.Sleep(time.Second)
		if r.SignalReceived() != hup || r.Generation() != 2 {
			t.Errorf("Start did not return with HUP")
		}
		r.Deliver(term)
		<-done
	})
}

// D7: workers that end cleanly at once are spawned at a bounded rate: three for nothing in each slot, then one each
// ErrRespawnInterval.
func TestD7CleanEndsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, func(p *proc.FakeProcess) { p.Exit(proc.Status{}) }, nil)
		done := r.startAgain()
		time.Sleep(10*time.Second + time.Second/2)
		if n := len(r.fake.Started()); n != 2*(3+10) {
			t.Errorf("%d spawns in 10.5 s, want 26", n)
		}
		r.Deliver(term)
		<-done
	})
}

// D8: a worker that ignores TERM is killed after StopTimeout, on its own clock when the stop is staggered.
func TestD8StopTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 3, StopTimeout: 5 * time.Second, TrapSignals: Signals{term: {Signal: term, Interval: 2 * time.Second}}}, nil,
			func(*proc.FakeProcess, syscall.Signal) {})
		began := time.Now()
		time.AfterFunc(time.Second, func() { r.Deliver(term) })
		r.Start()
		r.WaitAllChildren(context.Background())
		for i, e := range r.exits {
			if want := time.Second + time.Duration(i)*2*time.Second + 5*time.Second; e.Uptime != want || e.Reason != ReasonOverdue || e.Status.Signal != kill {
				t.Errorf("worker %d: %v; want it killed after %v", e.Ordinal, e, want)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the stop took %v, want 10 s", took)
		}
	})
}

// D11: lowering the number of workers stops the surplus; raising it starts more.
func TestD11Resize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 10}, nil, nil)
		done := r.startAgain()
		for _, n := range []int{3, 12, 0, 1} {
			time.Sleep(time.Second)
			r.SetMaxWorkers(n)
			if r.MaxWorkers() != n {
				t.Errorf("MaxWorkers = %d right after it was set to %d", r.MaxWorkers(), n)
			}
			r.wantWorkers("resized", n)
			for _, w := range r.Snapshot().Workers {
				if w.Slot >= n {
					t.Errorf("%v in a slot beyond %d", w, n)
				}
			}
		}
		if n := r.count("from 10 to 3 workers"); n != 1 {
			t.Errorf("events: %q", r.eventLog())
		}
		r.Deliver(term)
		<-done
	})
}

// D15, and "A second ShutdownSignal while workers stop is forwarded again".
func TestD15SecondTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, nil, func(p *proc.FakeProcess, _ syscall.Signal) {
			if len(p.Signals()) == 2 {
				p.Exit(proc.Status{})
			}
		})
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(term)
		time.Sleep(time.Second)
		r.wantSignals(1, term)
		r.Deliver(term)
		<-done
		r.wantSignals(1, term, term)
		if r.exits[0].Reason != ReasonStopped {
			t.Errorf("reason %v, want stopped", r.exits[0].Reason)
		}
	})
}

// R5, P19: workers that a reload ended do not make the next generation wait, however long the program took between.
func TestR5ReloadIsNotACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 3, ErrRespawnInterval: 30 * time.Second, TrapSignals: hupAndTerm}, nil,
			func(p *proc.FakeProcess, sig syscall.Signal) { p.Exit(proc.Status{Signal: sig}) })
		time.AfterFunc(100*time.Millisecond, func() { r.Deliver(hup) })
		r.Start()
		time.Sleep(5 * time.Second)
		r.process(1) // the old ones have ended meanwhile
		time.AfterFunc(boot+1, func() { r.Deliver(term) })
		r.Start()
		if n := r.count("generation 2) starting"); n != 3 {
			t.Errorf("%d workers of generation 2 at once, want 3; events: %q", n, r.eventLog())
		}
		r.WaitAllChildren(context.Background())
	})
}

// "Between two blocking calls nothing is spawned, reaped or escalated; signals are kept."
func TestBetweenTwoBlockingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, StopTimeout: time.Second, TrapSignals: Signals{term: {Signal: term}, usr1: {}}}, nil,
			func(*proc.FakeProcess, syscall.Signal) {})
		time.AfterFunc(time.Second, func() { r.Deliver(usr1) })
		r.Start()
		before := len(r.eventLog())
		r.SignalAllChildren(term)
		r.SetMaxWorkers(5)
		r.process(1).Exit(proc.Status{})
		time.Sleep(time.Minute)
		if n := len(r.eventLog()); n != before || r.NumWorkers() != 2 || len(r.fake.Started()) != 2 {
			t.Errorf("between two calls something happened: %q", r.eventLog()[before:])
		}
		r.Deliver(term)
		r.Start()
		if len(r.exits) != 1 || r.exits[0].Ordinal != 1 {
			t.Errorf("the next call did not reap: %v", r.exits)
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil {
			t.Error(left, err)
		}
	})
}

// "Two at a time panic", also from a hook.
func TestOneBlockingCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fromHook string
		r := newRig(t, Config{MaxWorkers: 1, OnChildReap: func(m *Manager, _ Exit) {
			fromHook = panics(func() { m.WaitAllChildren(context.Background()) })
		}}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		if got := panics(func() { r.Start() }); !strings.Contains(got, "one blocking call at a time") {
			t.Errorf("a second Start: %q", got)
		}
		r.Deliver(term)
		<-done
		if !strings.Contains(fromHook, "none in a hook") {
			t.Errorf("WaitAllChildren in a hook: %q", fromHook)
		}
	})
}

// panics returns what f panics with.
func panics(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

func TestMisusePanics(t *testing.T) {
	r := newRig(t, Config{}, nil, nil)
	for name, f := range map[string]func(){
		"Finish called in the manager":    func() { r.Finish(0) },
		"Deliver(nil)":                    func() { r.Deliver(nil) },
		"SignalAllChildren(<nil>)":        func() { r.SignalAllChildren(nil) },
		"SetMaxWorkers(-1)":               func() { r.SetMaxWorkers(-1) },
		"StartFunc(nil): a worker needs":  func() { r.StartFunc(nil) },
		"Run(nil): a worker needs a func": func() { r.Run(context.Background(), nil) },
	} {
		if got := panics(f); !strings.HasPrefix(got, "prefork: ") || !strings.Contains(got, name) {
			t.Errorf("%s: panics with %q", name, got)
		}
	}
}

// "After Deliver of a signal that the table does not name, Start returns with it and nothing is forwarded", also from a
// hook.
func TestDeliverFromHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 3, AfterSpawn: func(m *Manager, _ int) {
			if m.NumWorkers() == 3 {
				m.Deliver(syscall.SIGWINCH)
			}
		}}, nil, nil)
		r.Start()
		if r.SignalReceived() != syscall.SIGWINCH {
			t.Errorf("Start returned with %v", r.SignalReceived())
		}
		for i := range 3 {
			r.wantSignals(i + 1)
		}
		r.SignalAllChildren(term)
		r.WaitAllChildren(context.Background())
	})
}

// The hooks see what the documentation says that they see, and what they write can be read after the call.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		cfg := Config{
			MaxWorkers: 2, ErrRespawnInterval: -1,
			BeforeSpawn: func(m *Manager, s *Spawn) {
				order = append(order, fmt.Sprintf("before slot %d ordinal %d with %d", s.Slot, s.Ordinal, m.NumWorkers()))
			},
			AfterSpawn: func(m *Manager, pid int) { order = append(order, fmt.Sprintf("after with %d", m.NumWorkers())) },
			OnChildReap: func(m *Manager, e Exit) {
				order = append(order, fmt.Sprintf("reap %v with %d", e.Reason, m.NumWorkers()))
			},
		}
		r := newRig(t, cfg, nil, nil)
		r.fake.FailNext(1, syscall.EAGAIN)
		time.AfterFunc(time.Second, func() { r.process(1).Exit(proc.Status{Code: 1}) })
		time.AfterFunc(2*time.Second, func() { r.Deliver(term) })
		r.Start()
		r.WaitAllChildren(context.Background())
		want := []string{
			"before slot 0 ordinal 1 with 0", // fails, and uses up no ordinal
			"before slot 0 ordinal 1 with 0", "after with 1",
			"before slot 1 ordinal 2 with 1", "after with 2",
			"reap crashed with 1",
			"before slot 0 ordinal 3 with 1", "after with 2",
			"reap stopped with 1", "reap stopped with 0",
		}
		if !slices.Equal(order, want) {
			t.Errorf("hooks ran:\n%s\nwant:\n%s", strings.Join(order, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A spawn that fails is logged, reported, paced for all slots together, and uses up no ordinal.
func TestSpawnFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed []SpawnFailedEvent
		var tries []time.Duration
		began := time.Now()
		var log bytes.Buffer
		r := newRig(t, Config{
			MaxWorkers:  3,
			Logger:      slog.New(slog.NewTextHandler(&log, nil)),
			BeforeSpawn: func(*Manager, *Spawn) { tries = append(tries, time.Since(began)) },
			Observe: func(ev Event) {
				if ev, ok := ev.(SpawnFailedEvent); ok {
					failed = append(failed, ev)
				}
			},
		}, nil, nil)
		r.fake.FailNext(3, os.NewSyscallError("fork", syscall.EAGAIN))
		time.AfterFunc(time.Minute, func() { r.Deliver(term) })
		r.Start()
		r.WaitAllChildren(context.Background())
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}; !slices.Equal(tries, want) {
			t.Errorf("tries at %v, want %v", tries, want)
		}
		for i, ev := range failed {
			var spawn *SpawnError
			if !errors.As(error(ev.Err), &spawn) || !errors.Is(ev.Err, syscall.EAGAIN) || ev.Retry != time.Second<<i {
				t.Errorf("event %d: %v", i, ev)
			}
		}
		if len(failed) != 3 || strings.Count(log.String(), "spawn failed") != 3 || r.process(1).ID != 1 {
			t.Errorf("%d events, log:\n%s", len(failed), &log)
		}
	})
}

// "A signal other than the stop signal is held for a worker that is still starting and sent when it is ready."
func TestSignalsAreHeldForStartingWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(p *proc.FakeProcess) {
			time.AfterFunc(10*time.Second, func() { p.Say(wire.Append(nil, wire.Reached{})) })
		}
		r := newRig(t, Config{MaxWorkers: 1, TrapSignals: Signals{term: {Signal: term}, usr1: {Signal: hup}}}, slow, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		r.Deliver(usr1)
		time.Sleep(time.Second)
		r.Deliver(usr1)
		r.SignalAllChildren(syscall.SIGCONT)
		r.wantSignals(1, syscall.SIGCONT)
		time.Sleep(9 * time.Second)
		r.wantSignals(1, syscall.SIGCONT, hup)
		r.SetMaxWorkers(2)
		time.Sleep(time.Second)
		r.Deliver(term) // is not held
		r.wantSignals(2, term)
		<-done
	})
}

// "Told to stop means: was sent the stop signal by any path": it is the reason of the exit, and the clock runs.
func TestToldToStopByAnyPath(t *testing.T) {
	for name, tell := range map[string]func(*rig){
		"table":             func(r *rig) { r.Deliver(hup) },
		"SignalAllChildren": func(r *rig) { r.SignalAllChildren(syscall.SIGQUIT) },
		"SetMaxWorkers":     func(r *rig) { r.SetMaxWorkers(0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := Signals{term: {Signal: syscall.SIGQUIT}, hup: {Signal: syscall.SIGQUIT}}
				r := newRig(t, Config{MaxWorkers: 1, StopTimeout: 3 * time.Second, TrapSignals: table}, nil, func(*proc.FakeProcess, syscall.Signal) {})
				done := r.startAgain()
				time.Sleep(time.Second)
				tell(r)
				r.wantSignals(1, syscall.SIGQUIT)
				time.Sleep(3 * time.Second)
				r.wantSignals(1, syscall.SIGQUIT, kill)
				if r.exits[0].Reason != ReasonOverdue {
					t.Errorf("reason %v", r.exits[0].Reason)
				}
				r.Deliver(term)
				<-done
			})
		})
	}
}

// "WaitAllChildren … sends no signal of its own, finishes what was begun to be forwarded, forwards by the table what
// arrives meanwhile"; Start may be used again after it.
func TestWaitAllChildrenForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, TrapSignals: Signals{term: {}, usr1: {Signal: hup, Interval: 10 * time.Second}}}, nil, nil)
		time.AfterFunc(time.Second, func() { r.Deliver(usr1) })
		r.Start()
		r.wantSignals(1, hup)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if left, err := r.WaitAllChildren(ctx); left != 2 || err == nil {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
		r.wantSignals(2, hup)
		r.process(1).Exit(proc.Status{})
		time.AfterFunc(boot+time.Second, func() { r.Deliver(term) })
		r.Start()
		if r.NumWorkers() != 2 || len(r.fake.Started()) != 3 {
			t.Errorf("Start after WaitAllChildren: %v", r.Snapshot())
		}
		r.SignalAllChildren(term)
		r.WaitAllChildren(context.Background())
	})
}

// A context that ends first is no error when all workers are gone by then.
func TestWaitAllChildrenNobodyLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if left, err := r.WaitAllChildren(ctx); left != 0 || err != nil {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
	})
}

// A worker that writes nonsense harms itself alone.
func TestWorkerThatWritesNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(p *proc.FakeProcess) {
			p.Say([]byte("R"))
			time.AfterFunc(time.Second, func() { p.Say([]byte("\x00GET / HTTP/1.1")) })
			time.AfterFunc(2*time.Second, func() { p.Say(wire.Append(nil, wire.Reached{})) })
		}, nil)
		done := r.startAgain()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "does not speak the protocol"); n != 1 {
			t.Errorf("%d lines, want 1:\n%s", n, &log)
		}
		if s := r.Snapshot(); len(s.Workers) != 1 || s.Workers[0].State != StateReady {
			t.Errorf("%v", s)
		}
		r.Deliver(term)
		<-done
	})
}

// A worker that let go of its socket before it reached Start and lives on (it replaced itself by another program, or by
// the same without its marker) is killed; one that is just ending is not.
func TestLostWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, func(p *proc.FakeProcess) {
			if p.ID == 1 {
				p.Hangup()
			} else {
				p.Exit(proc.Status{Code: 7})
			}
		}, func(*proc.FakeProcess, syscall.Signal) {})
		time.AfterFunc(time.Second/2, func() { r.Deliver(term) })
		r.Start()
		if len(r.exits) != 2 || r.exits[0].Status.Code != 7 || r.exits[0].Reason != ReasonCrashed {
			t.Fatalf("exits: %v", r.exits)
		}
		if e := r.exits[1]; e.Reason != ReasonNeverReady || e.Uptime > time.Second/2 {
			t.Errorf("the lost one: %v", e)
		}
		r.WaitAllChildren(context.Background())
	})
}

func TestConfigErrors(t *testing.T) {
	for field, cfg := range map[string]Config{
		"MaxWorkers":     {MaxWorkers: -1},
		"SpawnInterval":  {SpawnInterval: -1},
		"OrphanTimeout":  {OrphanTimeout: -1},
		"ShutdownSignal": {ShutdownSignal: syscall.SIGKILL},
		"TrapSignals":    {TrapSignals: Signals{syscall.SIGSTOP: {}}},
		"Command":        {Command: []string{}},
	} {
		cfg.Name = t.Name()
		_, err := New(cfg)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != field || errors.Unwrap(ce) == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for name, table := range map[string]Signals{
		"not a signal of the system": {notASignal{}: {}},
		"no signal 99":               {hup: {Signal: syscall.Signal(99)}},
		"is negative":                {hup: {Signal: term, Interval: -1}},
		"Go runtime":                 {syscall.SIGURG: {}},
	} {
		if _, err := New(Config{TrapSignals: table}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type notASignal struct{}

func (notASignal) Signal()        {}
func (notASignal) String() string { return "not a signal" }

func TestTwoManagersOfOneName(t *testing.T) {
	r := newRig(t, Config{}, nil, nil)
	var ce *ConfigError
	if _, err := New(Config{Name: r.cfg.Name}); !errors.As(err, &ce) || ce.Field != "Name" {
		t.Errorf("New = %v, want a ConfigError of Name", err)
	}
}
