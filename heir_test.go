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

// heirRig is a rig of two workers, whose heirs do what onHeir says.
func heirRig(t *testing.T, cfg Config, onHeir func(*proc.FakeProcess)) *rig {
	cfg.MaxWorkers = 2
	cfg.TrapSignals = Signals{term: {Signal: term}, hup: {Rolling: true}, usr2: {Upgrade: true}}
	return newRig(t, cfg, func(p *proc.FakeProcess) {
		if p.ID < firstHeir {
			reachStart(p)
		} else if onHeir != nil {
			onHeir(p)
		}
	}, nil)
}

func say(p *proc.FakeProcess, msg wire.Message) { p.Say(wire.Append(nil, msg)) }

// heirs are the processes that were started as heirs.
func (r *rig) heirProcesses() (all []*proc.FakeProcess) {
	for _, p := range r.fake.Started() {
		if p.ID >= firstHeir {
			all = append(all, p)
		}
	}
	return all
}

// The heir takes over when it says that it is ready: the Manager has its workers end, and ends.
func TestUpgradeHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{}, func(p *proc.FakeProcess) {
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
		heirs := r.heirProcesses()
		if len(heirs) != 1 || string(heirs[0].Written()) != "T\x00" || len(heirs[0].Signals()) != 0 {
			t.Fatalf("%d heirs; the first was told %q and sent %v", len(heirs), heirs[0].Written(), heirs[0].Signals())
		}
		if !heirs[0].Spec.SameGroup || !strings.Contains(strings.Join(heirs[0].Spec.Env, "\n"), inherit.HeirEnv+"=") {
			t.Errorf("the heir was started with %+v", heirs[0].Spec)
		}
		r.wantSignals(2, term)
		if r.SignalReceived() != term || r.count("has taken over") != 1 {
			t.Errorf("after %v: %q", r.SignalReceived(), r.eventLog())
		}
	})
}

// An heir that does not come out changes nothing, is reaped, and the next one is let try.
func TestUpgradeFails(t *testing.T) {
	for name, c := range map[string]struct {
		heir func(*proc.FakeProcess)
		want string
		took time.Duration
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
				r := heirRig(t, Config{}, c.heir)
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
				if r.heir != nil || len(r.heirProcesses()) != 2 || r.count("upgrade failed") != 2 {
					t.Errorf("%d heirs, one is left: %v; %q", len(r.heirProcesses()), r.heir != nil, r.eventLog())
				}
				r.Deliver(term)
				<-r.startAgain()
			})
		})
	}
}

// What has come for the old manager goes to the heir, and a worker's stop signal does not.
func TestUpgradeHandsOnSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{}, func(p *proc.FakeProcess) {
			time.AfterFunc(3*time.Second, func() { say(p, wire.Reached{}) })
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Second)
		r.Deliver(hup)
		<-done
		if got := r.heirProcesses()[0].Signals(); len(got) != 1 || got[0] != hup {
			t.Errorf("the heir was sent %v", got)
		}
		if r.Generation() != 1 {
			t.Errorf("generation %d", r.Generation())
		}
	})
}

// An heir that heeds no signal is killed; a shutdown does not wait for it, and neither does it leave it behind.
func TestUpgradeOfTheDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{StopTimeout: 5 * time.Second}, nil)
		r.fake.OnSignal = func(p *proc.FakeProcess, sig syscall.Signal) {
			if p.ID < firstHeir {
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
		if got := r.heirProcesses()[0].Signals(); len(got) != 3 || got[0] != term || got[2] != kill {
			t.Errorf("the heir was sent %v", got)
		}
	})
}

func TestUpgradeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{}, nil)
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
		r := heirRig(t, Config{}, nil)
		if err := r.Upgrade(context.Background()); err == nil || !strings.Contains(err.Error(), "Start") {
			t.Errorf("before the first Start: %v", err)
		}
	})
}

// A signal that comes for the old Manager when the heir has taken over goes to that, too, and to the workers that drain.
func TestUpgradePassesSignalsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{}, func(p *proc.FakeProcess) { say(p, wire.Reached{}) })
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
		heirs := r.heirProcesses()
		if len(heirs) != 1 || !slices.Equal(heirs[0].Signals(), []syscall.Signal{hup, usr1}) {
			t.Errorf("%d heirs; the first was sent %v", len(heirs), heirs[0].Signals())
		}
		if got := signalsOf(r.process(1)); !slices.Contains(got, usr1) {
			t.Errorf("a worker was sent %v", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An heir that floods the manager is read slowly, too, and heard in the end.
func TestUpgradeFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := heirRig(t, Config{}, func(p *proc.FakeProcess) {
			p.Say(bytes.Repeat(wire.Append(nil, wire.Bell{}), 1000))
			say(p, wire.Reached{})
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		synctest.Wait()
		if n := r.heirProcesses()[0].Unread(); n < 1000 {
			t.Errorf("%d bytes are left: one turn read too much", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
