//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
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

// "Between two blocking calls nothing is spawned, reaped or escalated; signals
// are kept."
func TestBetweenTwoBlockingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, StopTimeout: time.Second, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {}}}, nil,
			func(*proctest.Process, syscall.Signal) {})
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

// "Two at a time panic", also in a hook.
func TestOneBlockingCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fromHook string
		r := newRig(t, prefork.Config{MaxWorkers: 1, OnChildReap: func(m *prefork.Manager, _ prefork.Exit) {
			fromHook = panics(func() { m.WaitAllChildren(context.Background()) })
		}}, nil, nil)
		done := r.startLoop()
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

func TestMisusePanics(t *testing.T) {
	r := newRig(t, prefork.Config{}, nil, nil)
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

// "After Deliver of a signal that the table does not name, Start returns with
// it and nothing is forwarded", also in a hook.
func TestDeliverFromHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, AfterSpawn: func(m *prefork.Manager, _ int) {
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

// The hooks see the documented state of the Manager. Their effects are visible
// to the program after the call.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		cfg := prefork.Config{
			MaxWorkers: 2, ErrRespawnInterval: -1,
			BeforeSpawn: func(m *prefork.Manager, s *prefork.Spawn) {
				order = append(order, fmt.Sprintf("before slot %d ordinal %d with %d", s.Slot, s.Ordinal, m.NumWorkers()))
			},
			AfterSpawn: func(m *prefork.Manager, pid int) { order = append(order, fmt.Sprintf("after with %d", m.NumWorkers())) },
			OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
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
			"before slot 0 ordinal 1 with 0", // fails, and uses no ordinal
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

// A failed spawn is logged and reported. It delays the spawns of all slots
// together and uses no ordinal.
func TestSpawnFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed []prefork.SpawnFailedEvent
		var tries []time.Duration
		began := time.Now()
		var log bytes.Buffer
		r := newRig(t, prefork.Config{
			MaxWorkers:  3,
			Logger:      slog.New(slog.NewTextHandler(&log, nil)),
			BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { tries = append(tries, time.Since(began)) },
			Observe: func(ev prefork.Event) {
				if ev, ok := ev.(prefork.SpawnFailedEvent); ok {
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
			var spawn *prefork.SpawnError
			if !errors.As(error(ev.Err), &spawn) || !errors.Is(ev.Err, syscall.EAGAIN) || ev.Retry != time.Second<<i {
				t.Errorf("event %d: %v", i, ev)
			}
		}
		if len(failed) != 3 || strings.Count(log.String(), "spawn failed") != 3 || r.process(1).ID != 1 {
			t.Errorf("%d events, log:\n%s", len(failed), &log)
		}
	})
}

// "A signal other than the stop signal is held for a worker that is still
// starting and sent when it is ready."
func TestSignalsAreHeldForStartingWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(p *proctest.Process) {
			time.AfterFunc(10*time.Second, func() { send(p, wire.Ready{}) })
		}
		r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {Signal: hup}}}, slow, nil)
		done := r.startLoop()
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

// A worker that was sent the stop signal in any way is stopping: its exit has
// that reason, and StopTimeout applies.
func TestStopSignalByAnyPath(t *testing.T) {
	for name, stop := range map[string]func(*rig){
		"table":             func(r *rig) { r.Deliver(hup) },
		"SignalAllChildren": func(r *rig) { r.SignalAllChildren(syscall.SIGQUIT) },
		"SetMaxWorkers":     func(r *rig) { r.SetMaxWorkers(0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := prefork.Signals{term: {Signal: syscall.SIGQUIT}, hup: {Signal: syscall.SIGQUIT}}
				r := newRig(t, prefork.Config{MaxWorkers: 1, StopTimeout: 3 * time.Second, TrapSignals: table}, nil, func(*proctest.Process, syscall.Signal) {})
				done := r.startLoop()
				time.Sleep(time.Second)
				stop(r)
				r.wantSignals(1, syscall.SIGQUIT)
				time.Sleep(3 * time.Second)
				r.wantSignals(1, syscall.SIGQUIT, kill)
				if r.exits[0].Reason != prefork.ReasonStopTimeout {
					t.Errorf("reason %v", r.exits[0].Reason)
				}
				r.Deliver(term)
				<-done
			})
		})
	}
}

// WaitAllChildren sends no signal of its own. It completes staggered signals and
// forwards signals that arrive, by the table. Start may be used again after it.
func TestWaitAllChildrenForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {}, usr1: {Signal: hup, Interval: 10 * time.Second}}}, nil, nil)
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

// WaitAllChildren returns no error for a context that has ended if no workers
// are left.
func TestWaitAllChildrenWithoutWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{}, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if left, err := r.WaitAllChildren(ctx); left != 0 || err != nil {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
	})
}

func TestConfigErrors(t *testing.T) {
	for field, cfg := range map[string]prefork.Config{
		"MaxWorkers":      {MaxWorkers: -1},
		"MinSpareWorkers": {MaxWorkers: 3, MinSpareWorkers: 4},
		"MaxSpareWorkers": {MinSpareWorkers: 3, MaxSpareWorkers: 2},
		"SpawnInterval":   {SpawnInterval: -1},
		"OrphanTimeout":   {OrphanTimeout: -1},
		"SuccessCodes":    {SuccessCodes: []int{256}},
		"Restart":         {Restart: prefork.RestartNever + 1},
		"Backoff":         {Backoff: []time.Duration{0, -time.Second}},
		"ShutdownSignal":  {ShutdownSignal: syscall.SIGKILL},
		"TrapSignals":     {TrapSignals: prefork.Signals{syscall.SIGSTOP: {}}},
		"Command":         {Command: []string{}},
	} {
		cfg.Name = t.Name()
		_, err := prefork.New(cfg)
		var ce *prefork.ConfigError
		if !errors.As(err, &ce) || ce.Field != field || errors.Unwrap(ce) == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for name, table := range map[string]prefork.Signals{
		"not a signal of the system": {notASignal{}: {}},
		"no signal 99":               {hup: {Signal: syscall.Signal(99)}},
		"is negative":                {hup: {Signal: term, Interval: -1}},
		"Go runtime":                 {syscall.SIGURG: {}},
	} {
		if _, err := prefork.New(prefork.Config{Name: t.Name(), TrapSignals: table}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type notASignal struct{}

func (notASignal) Signal()        {}
func (notASignal) String() string { return "not a signal" }

func TestTwoManagersOfOneName(t *testing.T) {
	r := newRig(t, prefork.Config{}, nil, nil)
	var ce *prefork.ConfigError
	if _, err := prefork.New(prefork.Config{Name: r.name}); !errors.As(err, &ce) || ce.Field != "Name" {
		t.Errorf("New = %v, want a ConfigError of Name", err)
	}
}

// All other methods are safe for concurrent use and never block, even while the
// loop and hooks run.
func TestMethodsFromAnyGoroutine(t *testing.T) {
	r := newRig(t, prefork.Config{MaxWorkers: 3, ErrRespawnInterval: -1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {}}},
		func(p *proctest.Process) { send(p, wire.Ready{}) }, nil)
	done := r.startLoop()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				switch (i + n) % 8 {
				case 0:
					r.SetMaxWorkers(1 + n%5)
				case 1:
					r.Deliver([]syscall.Signal{hup, usr1}[n%2])
				case 2:
					r.SignalAllChildren([]syscall.Signal{hup, term}[n%2])
				case 3:
					r.Pass([]byte("data"))
				case 4:
					if s := r.Snapshot(); len(s.Workers) > 10 || s.String() == "" {
						t.Errorf("%v", s)
					}
				default:
					_, _, _, _ = r.NumWorkers(), r.MaxWorkers(), r.Generation(), r.SignalReceived()
				}
			}
		})
	}
	wg.Wait()
	r.Deliver(term)
	<-done
	if r.NumWorkers() != 0 {
		t.Errorf("%d workers left", r.NumWorkers())
	}
}
