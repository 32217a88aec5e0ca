//go:build unix

package prefork

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

const usr2 = syscall.SIGUSR2

// successorRig is a rig of two workers, whose successors do what onSuccessor says.
func successorRig(t *testing.T, cfg Config, onSuccessor func(*proc.FakeProcess)) *rig {
	cfg.MaxWorkers = 2
	cfg.TrapSignals = Signals{term: {Signal: term}, hup: {Rolling: true}, usr2: {Upgrade: true}}
	return newRig(t, cfg, func(p *proc.FakeProcess) {
		if p.ID < firstSuccessor {
			reachStart(p)
		} else if onSuccessor != nil {
			onSuccessor(p)
		}
	}, nil)
}

func say(p *proc.FakeProcess, msg wire.Message) { p.Say(wire.Append(nil, msg)) }

// successors are the processes that were started as successors.
func (r *rig) successorProcesses() (all []*proc.FakeProcess) {
	for _, p := range r.fake.Started() {
		if p.ID >= firstSuccessor {
			all = append(all, p)
		}
	}
	return all
}

// The successor takes over when it says that it is ready: the Manager has its workers end, and ends.
func TestUpgradeHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, func(p *proc.FakeProcess) {
			time.AfterFunc(3*time.Second, func() { say(p, wire.Reached{}) })
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.process(1).Exit(proc.Status{Code: 1}) // the generation is kept full meanwhile
		time.Sleep(time.Second)
		r.wantWorkers("during the upgrade", 2)
		if err := <-done; err != nil {
			t.Error(err)
		}
		successors := r.successorProcesses()
		if len(successors) != 1 || string(successors[0].Written()) != "T\x00" || len(successors[0].Signals()) != 0 {
			t.Fatalf("%d successors; the first was told %q and sent %v", len(successors), successors[0].Written(), successors[0].Signals())
		}
		if !successors[0].Spec.SameGroup || !strings.Contains(strings.Join(successors[0].Spec.Env, "\n"), inherit.SuccessorEnv+"=") {
			t.Errorf("the successor was started with %+v", successors[0].Spec)
		}
		r.wantSignals(2, term)
		if r.SignalReceived() != term || r.count("has taken over") != 1 {
			t.Errorf("after %v: %q", r.SignalReceived(), r.eventLog())
		}
	})
}

// A successor that does not come out changes nothing, is reaped, and the next one is let try.
func TestUpgradeFails(t *testing.T) {
	for name, c := range map[string]struct {
		successor func(*proc.FakeProcess)
		want      string
		took      time.Duration
	}{
		"dies":    {func(p *proc.FakeProcess) { time.AfterFunc(time.Second, func() { p.Exit(proc.Status{Code: 3}) }) }, "exit code 3", time.Second},
		"hangs":   {nil, "Config.UpgradeTimeout", time.Minute},
		"says so": {func(p *proc.FakeProcess) { say(p, wire.Failed{Why: "worker 7 crashed"}) }, "worker 7 crashed", 0},
		"babbles": {func(p *proc.FakeProcess) { p.Say([]byte("HTTP/1.1 200 OK")) }, "protocol", 0},
		"is gone when it is to take over": {func(p *proc.FakeProcess) {
			say(p, wire.Reached{})
			p.Exit(proc.Status{Signal: kill})
		}, "is gone", 0},
		"dies at once": {func(p *proc.FakeProcess) { p.Exit(proc.Status{}) }, "exit code 0", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := successorRig(t, Config{}, c.successor)
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
				if r.successor != nil || len(r.successorProcesses()) != 2 || r.count("upgrade failed") != 2 {
					t.Errorf("%d successors, one is left: %v; %q", len(r.successorProcesses()), r.successor != nil, r.eventLog())
				}
				r.Deliver(term)
				<-r.startAgain()
			})
		})
	}
}

// What has come for the old manager goes to the successor, and a worker's stop signal does not.
func TestUpgradeHandsOnSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, func(p *proc.FakeProcess) {
			time.AfterFunc(3*time.Second, func() { say(p, wire.Reached{}) })
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.Deliver(hup)
		<-done
		if got := r.successorProcesses()[0].Signals(); len(got) != 1 || got[0] != hup {
			t.Errorf("the successor was sent %v", got)
		}
		if r.Generation() != 1 {
			t.Errorf("generation %d", r.Generation())
		}
	})
}

// A successor that heeds no signal is killed; a shutdown does not wait for it, and neither does it leave it behind.
func TestUpgradeOfTheDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{StopTimeout: 5 * time.Second}, nil)
		r.fake.OnSignal = func(p *proc.FakeProcess, sig syscall.Signal) {
			if p.ID < firstSuccessor {
				endOnTerm(p, sig)
			}
		}
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
		if got := r.successorProcesses()[0].Signals(); len(got) != 3 || got[0] != term || got[2] != kill {
			t.Errorf("the successor was sent %v", got)
		}
	})
}

func TestUpgradeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, nil)
		go func() { time.Sleep(time.Minute); r.Deliver(usr1) }()
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
		defer cancel()
		if err := r.Upgrade(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		r.Deliver(term)
		<-r.startAgain()
	})
}

// Where the end of the manager would be the end of everything, it says what to do instead.
func TestUpgradeRefused(t *testing.T) {
	none := func(string) string { return "" }
	systemd := func(notify string) func(string) string {
		return func(name string) string { return map[string]string{"SYSTEMD_EXEC_PID": "77", notifyEnv: notify}[name] }
	}
	for _, c := range []struct {
		pid     int
		starter bool
		getenv  func(string) string
		want    string
	}{
		{1, false, none, "process 1"},
		{77, true, none, "start_server"},
		{77, false, systemd(""), "Type=notify"},
		{77, false, systemd("/run/systemd/notify"), ""},
		{78, false, systemd(""), ""},
	} {
		err := mayEnd(c.pid, c.starter, c.getenv)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("pid %d, by start_server %v: %v; want %q", c.pid, c.starter, err, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, nil)
		if err := r.Upgrade(context.Background()); err == nil || !strings.Contains(err.Error(), "Start") {
			t.Errorf("before the first Start: %v", err)
		}
	})
}

// A signal that comes for the old Manager when the successor has taken over goes to that, too, and to the workers that drain.
func TestUpgradePassesSignalsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, func(p *proc.FakeProcess) { say(p, wire.Reached{}) })
		r.cfg.TrapSignals[usr1] = Forward{Signal: usr1}
		r.fake.OnSignal = func(*proc.FakeProcess, syscall.Signal) {} // they drain
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.Deliver(hup)
		r.Deliver(usr1)
		r.Deliver(usr2)
		r.Deliver(term)
		time.Sleep(time.Second)
		successors := r.successorProcesses()
		if len(successors) != 1 || !slices.Equal(successors[0].Signals(), []syscall.Signal{hup, usr1}) {
			t.Errorf("%d successors; the first was sent %v", len(successors), successors[0].Signals())
		}
		if got := signalsOf(r.process(1)); !slices.Contains(got, usr1) {
			t.Errorf("a worker was sent %v", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A successor that floods the manager is read slowly, too, and heard in the end.
func TestUpgradeFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, func(p *proc.FakeProcess) {
			p.Say(bytes.Repeat(wire.Append(nil, wire.Bell{}), 1000))
			say(p, wire.Reached{})
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		synctest.Wait()
		if n := r.successorProcesses()[0].Unread(); n < 1000 {
			t.Errorf("%d bytes are left: one turn read too much", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
