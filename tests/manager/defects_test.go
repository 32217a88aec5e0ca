//go:build unix

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// T4: the original's 04-interval.t.
func TestOriginal04Interval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, SpawnInterval: time.Second, TrapSignals: prefork.Signals{term: {Signal: term, Interval: 2 * time.Second}}}, nil, nil)
		done := r.startLoop()
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
		r := newRig(t, prefork.Config{MaxWorkers: 30}, nil, func(p *proctest.Process, _ syscall.Signal) {
			if len(signalsOf(p)) == (int(p.ID)+9)/10 { // worker k ends after ceil(k/10) TERMs
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
		r := newRig(t, prefork.Config{MaxWorkers: 30}, nil, func(p *proctest.Process, _ syscall.Signal) {
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

// P24: HUP with [TERM, 0.5 s] replaces 4 workers one by one.
func TestRollingByInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 4, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term, Interval: time.Second / 2}}}, nil, nil)
		done := r.startLoop()
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

// P25: a signal that is mapped to nothing ends Start. The next Start counts the
// same workers.
func TestSignalMappedToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {}}}, nil, nil)
		done := r.startLoop()
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

// D1: a signal that arrives between two calls of Start is kept and ends the
// next one at once.
func TestD1SignalBetweenStartsIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: hupAndTerm}, nil, nil)
		time.AfterFunc(time.Second, func() { r.Deliver(hup) })
		r.Start()
		r.Deliver(term) // the program loads its configuration
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

// D2: HUP does not hide TERM, nor another signal HUP. The shutdown signal goes
// first; one of each is kept.
func TestD2PendingSignals(t *testing.T) {
	for _, tt := range []struct{ arrive, want []syscall.Signal }{
		{[]syscall.Signal{term, hup}, []syscall.Signal{term, hup}},
		{[]syscall.Signal{hup, term}, []syscall.Signal{term, hup}},
		{[]syscall.Signal{usr1, hup, usr1, term, hup, term}, []syscall.Signal{term, usr1, hup}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {}, hup: {}, usr1: {}}}, nil, nil)
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

// D3: a signal ends the wait at any moment.
func TestD3NoLostWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {}}}, nil, nil)
		done := r.startLoop()
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

// D4: five workers that crash 0.9 s apart are replaced independently. The other
// workers keep running.
func TestD4CrashesDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 5}, nil, nil)
		done := r.startLoop()
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

// D5: the hook gets the exit status in both Start and WaitAllChildren.
func TestD5TrueStatusInBothPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {}}}, nil, nil)
		end := func() {
			r.process(1).Exit(proc.Status{Code: 3})
			r.process(2).Exit(proc.Status{Signal: kill})
		}
		time.AfterFunc(time.Hour, func() { r.Deliver(term) })
		r.Start()
		time.AfterFunc(time.Second, end)
		r.WaitAllChildren(context.Background())
		want := []prefork.ExitStatus{{Code: 3}, {Signal: kill}}
		for i, e := range r.exits {
			if e.Status != want[i] || e.Reason != prefork.ReasonCrashed || e.Usage == nil || e.Uptime < time.Hour {
				t.Errorf("exit %d: %+v, want status %v", i, e, want[i])
			}
		}
		if len(r.exits) != 2 {
			t.Errorf("%d exits, want 2", len(r.exits))
		}
	})
}

// D6: a staggered signal is a no-op without workers.
func TestD6StaggeredSignalWithoutWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term, Interval: time.Second}}}, nil, nil)
		r.SetMaxWorkers(0)
		done := r.startLoop()
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

// D7: workers that exit cleanly at once are spawned at a bounded rate. Each
// slot gets three without a delay, then one after 1, 2, 4 … s.
func TestD7CleanEndsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, CrashLoop: prefork.CrashLoop{Failures: -1}}, func(p *proctest.Process) { p.Exit(proc.Status{}) }, nil)
		done := r.startLoop()
		time.Sleep(10*time.Second + time.Second/2)
		if n := len(r.fake.Started()); n != 2*(3+3) {
			t.Errorf("%d spawns in 10.5 s, want 12", n)
		}
		r.Deliver(term)
		<-done
	})
}

// D8: a worker that ignores TERM is killed after StopTimeout. In a staggered
// stop each worker has its own deadline.
func TestD8StopTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, StopTimeout: 5 * time.Second, TrapSignals: prefork.Signals{term: {Signal: term, Interval: 2 * time.Second}}}, nil,
			func(*proctest.Process, syscall.Signal) {})
		began := time.Now()
		time.AfterFunc(time.Second, func() { r.Deliver(term) })
		r.Start()
		r.WaitAllChildren(context.Background())
		for i, e := range r.exits {
			if want := time.Second + time.Duration(i)*2*time.Second + 5*time.Second; e.Uptime != want || e.Reason != prefork.ReasonStopTimeout || e.Status.Signal != kill {
				t.Errorf("worker %d: %v; want it killed after %v", e.Ordinal, e, want)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the stop took %v, want 10 s", took)
		}
	})
}

// D11: a lower MaxWorkers stops the surplus workers; a higher one spawns more.
func TestD11Resize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 10}, nil, nil)
		done := r.startLoop()
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

// D15: a second ShutdownSignal is forwarded again while workers stop.
func TestD15SecondTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, func(p *proctest.Process, _ syscall.Signal) {
			if len(signalsOf(p)) == 2 {
				p.Exit(proc.Status{})
			}
		})
		done := r.startLoop()
		time.Sleep(time.Second)
		r.Deliver(term)
		time.Sleep(time.Second)
		r.wantSignals(1, term)
		r.Deliver(term)
		<-done
		r.wantSignals(1, term, term)
		if r.exits[0].Reason != prefork.ReasonStopped {
			t.Errorf("reason %v, want stopped", r.exits[0].Reason)
		}
	})
}

// R5, P19: workers that exited because of a reload do not delay the next
// generation, however long the program takes between two Starts.
func TestR5ReloadIsNotACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, ErrRespawnInterval: 30 * time.Second, TrapSignals: hupAndTerm}, nil,
			func(p *proctest.Process, sig syscall.Signal) { p.Exit(proc.Status{Signal: sig}) })
		time.AfterFunc(100*time.Millisecond, func() { r.Deliver(hup) })
		r.Start()
		time.Sleep(5 * time.Second)
		r.process(1) // the old workers have exited
		time.AfterFunc(boot+1, func() { r.Deliver(term) })
		r.Start()
		if n := r.count("generation 2) starting"); n != 3 {
			t.Errorf("%d workers of generation 2 at once, want 3; events: %q", n, r.eventLog())
		}
		r.WaitAllChildren(context.Background())
	})
}
