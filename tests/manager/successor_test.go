//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// successorRig is a rig of two workers, which exit on SIGTERM. onSuccessor is
// called for each successor.
func successorRig(t *testing.T, cfg prefork.Config, onSuccessor func(*proctest.Process)) *rig {
	t.Helper()
	return successorRigWith(t, cfg, onSuccessor, options{})
}

func successorRigWith(t *testing.T, cfg prefork.Config, onSuccessor func(*proctest.Process), opt options) *rig {
	t.Helper()
	cfg.MaxWorkers = 2
	table := prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr2: {Upgrade: true}}
	maps.Copy(table, cfg.TrapSignals)
	cfg.TrapSignals = table
	opt.onStart = func(p *proctest.Process) {
		if !isSuccessor(t, p) {
			reachStart(p)
		} else if onSuccessor != nil {
			onSuccessor(p)
		}
	}
	return newRigWith(t, cfg, opt)
}

func isSuccessor(t *testing.T, p *proctest.Process) bool {
	_, ok := successorMarker(t, p)
	return ok
}

// successors returns the processes that were started as successors.
func (r *rig) successors() (all []*proctest.Process) {
	r.t.Helper()
	for _, p := range r.fake.Started() {
		if _, ok := successorMarker(r.t, p); ok {
			all = append(all, p)
		}
	}
	return all
}

// The successor takes over when it reports that it is ready. The manager then
// stops its workers and ends.
func TestUpgradeHandsOver(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, func(p *proctest.Process) {
			time.AfterFunc(3*time.Second, func() { send(p, wire.Ready{}) })
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.process(1).Exit(proc.Status{Code: 1}) // the generation is kept full
		time.Sleep(time.Second)
		r.wantWorkers("during the upgrade", 2)
		if err := <-done; err != nil {
			t.Error(err)
		}
		successors := r.successors()
		if len(successors) != 1 || string(successors[0].Written()) != "T\x00" || len(successors[0].Signals()) != 0 {
			t.Fatalf("%d successors; the first received %q and %v", len(successors), successors[0].Written(), successors[0].Signals())
		}
		if !successors[0].Spec.SameGroup || !strings.Contains(strings.Join(successors[0].Spec.Env, "\n"), marker.SuccessorEnv+"=") {
			t.Errorf("the successor was started with %+v", successors[0].Spec)
		}
		r.wantSignals(2, term)
		if r.SignalReceived() != term || r.count("has taken over") != 1 {
			t.Errorf("after %v: %q", r.SignalReceived(), r.eventLog())
		}
	})
}

// A failed successor changes nothing and is reaped. The next upgrade may try
// again.
func TestUpgradeFails(t *testing.T) {
	for name, c := range map[string]struct {
		successor func(*proctest.Process)
		want      string
		took      time.Duration
	}{
		"dies":              {func(p *proctest.Process) { time.AfterFunc(time.Second, func() { p.Exit(proc.Status{Code: 3}) }) }, "exit code 3", time.Second},
		"hangs":             {nil, "Config.UpgradeTimeout", time.Minute},
		"reports a failure": {func(p *proctest.Process) { send(p, wire.Failed{Reason: "worker 7 crashed"}) }, "worker 7 crashed", 0},
		"sends nonsense":    {func(p *proctest.Process) { p.Send([]byte("HTTP/1.1 200 OK")) }, "protocol", 0},
		"is gone at the takeover": {func(p *proctest.Process) {
			send(p, wire.Ready{})
			p.Exit(proc.Status{Signal: kill})
		}, "is gone", 0},
		"dies at once": {func(p *proctest.Process) { p.Exit(proc.Status{}) }, "exit code 0", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := successorRig(t, prefork.Config{}, c.successor)
				go func() { time.Sleep(time.Minute); r.Deliver(usr1) }()
				r.Start()
				for range 2 {
					began := time.Now()
					err := r.Upgrade(context.Background())
					if err == nil || !strings.Contains(err.Error(), c.want) || time.Since(began) != c.took {
						t.Errorf("after %v: %v; want something with %q after %v", time.Since(began), err, c.want, c.took)
					}
				}
				r.wantWorkers("after that", 2)
				r.wantSignals(1)
				if len(r.successors()) != 2 || r.count("upgrade failed") != 2 {
					t.Errorf("%d successors; %q", len(r.successors()), r.eventLog())
				}
				r.Deliver(term)
				<-r.startLoop()
			})
		})
	}
}

// Signals that arrive during an upgrade reach the successor, except the
// shutdown signal of the takeover.
func TestUpgradeForwardsSignals(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, func(p *proctest.Process) {
			time.AfterFunc(3*time.Second, func() { send(p, wire.Ready{}) })
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.Deliver(hup)
		<-done
		if got := r.successors()[0].Signals(); len(got) != 1 || got[0] != hup {
			t.Errorf("the successor received %v", got)
		}
		if r.Generation() != 1 {
			t.Errorf("generation %d", r.Generation())
		}
	})
}

// A successor that ignores signals is killed. A shutdown stops the workers at
// once and waits for the successor's end.
func TestUpgradeOfStuckSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRigWith(t, prefork.Config{StopTimeout: 5 * time.Second}, nil, options{onSignal: func(p *proctest.Process, sig syscall.Signal) {
			if !isSuccessor(t, p) {
				endOnTerm(p, sig)
			}
		}})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(10 * time.Second)
		began := time.Now()
		r.Deliver(term)
		r.wantSignals(1, term) // at once
		<-done
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the end took %v, want StopTimeout", took)
		}
		if got := r.successors()[0].Signals(); len(got) != 3 || got[0] != term || got[2] != kill {
			t.Errorf("the successor received %v", got)
		}
	})
}

func TestUpgradeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, nil)
		go func() { time.Sleep(time.Minute); r.Deliver(usr1) }()
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
		defer cancel()
		if err := r.Upgrade(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		r.Deliver(term)
		<-r.startLoop()
	})
}

// A Manager without a generation cannot upgrade.
func TestUpgradeBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, nil)
		if err := r.Upgrade(context.Background()); err == nil || !strings.Contains(err.Error(), "Start") {
			t.Errorf("before the first Start: %v", err)
		}
	})
}

// After the takeover the old manager forwards a signal both to the successor
// and to its workers, which drain.
func TestSignalsAfterTakeover(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRigWith(t, prefork.Config{TrapSignals: prefork.Signals{usr1: {Signal: usr1}}},
			func(p *proctest.Process) { send(p, wire.Ready{}) },
			options{onSignal: ignoreSignals}) // the workers drain
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.Deliver(hup)
		r.Deliver(usr1)
		r.Deliver(usr2)
		r.Deliver(term)
		time.Sleep(time.Second)
		successors := r.successors()
		if len(successors) != 1 || !slices.Equal(successors[0].Signals(), []syscall.Signal{hup, usr1}) {
			t.Errorf("%d successors; the first received %v", len(successors), successors[0].Signals())
		}
		if got := signalsOf(r.process(1)); !slices.Contains(got, usr1) {
			t.Errorf("a worker received %v", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A shutdown signal that another process sends to the old manager after the
// takeover is for the program, and reaches the successor. The program's own
// request, an interrupt, which a terminal sends to both, and the end of Run's
// context do not.
func TestShutdownAfterTakeover(t *testing.T) {
	for name, c := range map[string]struct {
		ask    func(*rig, context.CancelFunc)
		passed []syscall.Signal
	}{
		"a signal":      {func(r *rig, _ context.CancelFunc) { r.receive(term) }, []syscall.Signal{term}},
		"two signals":   {func(r *rig, _ context.CancelFunc) { r.receive(term); time.Sleep(time.Nanosecond); r.receive(term) }, []syscall.Signal{term, term}},
		"with Shutdown": {func(r *rig, _ context.CancelFunc) { r.Shutdown(); r.receive(term); r.Shutdown() }, []syscall.Signal{term}},
		"with Run's context": {func(r *rig, cancel context.CancelFunc) {
			cancel()
			synctest.Wait()
			r.receive(term)
		}, []syscall.Signal{term}},
		"Shutdown":     {func(r *rig, _ context.CancelFunc) { r.Shutdown() }, nil},
		"Deliver":      {func(r *rig, _ context.CancelFunc) { r.Deliver(term) }, nil},
		"an interrupt": {func(r *rig, _ context.CancelFunc) { r.receive(syscall.SIGINT) }, nil},
		"two interrupts": {func(r *rig, _ context.CancelFunc) {
			r.receive(syscall.SIGINT)
			synctest.Wait()
			r.receive(syscall.SIGINT)
		}, nil},
		"the end of context": {func(_ *rig, cancel context.CancelFunc) { cancel() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T) {
				r := successorRigWith(t, prefork.Config{}, func(p *proctest.Process) { send(p, wire.Ready{}) },
					options{onSignal: ignoreSignals}) // the workers drain
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := r.startRun(ctx)
				time.Sleep(time.Second)
				r.receive(usr2)
				time.Sleep(time.Second)
				asked := time.Now()
				c.ask(r, cancel)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if atOnce := time.Since(asked) == 0; atOnce != (name == "two interrupts") {
					t.Errorf("the end took %v", time.Since(asked))
				}
				if got := signalsOf(r.successors()[0]); !slices.Equal(got, c.passed) {
					t.Errorf("the successor received %v, want %v", got, c.passed)
				}
			})
		})
	}
}

// The signal reaches the successor also if it arrives at the moment of the
// takeover, together with the shutdown signal that the Manager then delivers to
// itself.
func TestShutdownJustAfterTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{TrapSignals: prefork.Signals{usr1: {}}}, func(p *proctest.Process) { send(p, wire.Ready{}) })
		go func() { time.Sleep(time.Minute); r.receive(usr1) }()
		r.Start()
		if err := r.Upgrade(context.Background()); err != nil {
			t.Fatal(err)
		}
		r.receive(term) // the Manager's own still waits
		<-r.startLoop()
		if got := signalsOf(r.successors()[0]); !slices.Equal(got, []syscall.Signal{term}) {
			t.Errorf("the successor received %v", got)
		}
	})
}

// A successor that floods the manager is throttled, and its last message is
// read.
func TestSuccessorMessagesAreThrottled(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, func(p *proctest.Process) {
			p.Send(bytes.Repeat(wire.Append(nil, wire.StatusChanged{}), 1000))
			send(p, wire.Ready{})
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		synctest.Wait()
		if n := r.successors()[0].Unread(); n < 1000 {
			t.Errorf("%d bytes are left: one turn read too much", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
