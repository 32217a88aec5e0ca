//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

const workCut = "stop signal ended a worker that never called Context"

// The stop signal ends a worker that has not called Context in the middle of its
// work. The log says so once, and only if that is the reason.
func TestWorkerWithoutGrace(t *testing.T) {
	dieByTerm := func(p *proctest.Process, sig syscall.Signal) {
		if sig == term {
			p.Exit(proc.Status{Signal: term})
		}
	}
	exitWith := func(code int) func(*proctest.Process, syscall.Signal) {
		return func(p *proctest.Process, sig syscall.Signal) {
			if sig == term {
				p.Exit(proc.Status{Code: code})
			}
		}
	}
	for _, c := range []struct {
		name     string
		cfg      prefork.Config
		onStart  func(*testing.T, *proctest.Process)
		onSignal func(*proctest.Process, syscall.Signal)
		act      func(*rig)
		want     int
	}{
		{name: "two workers through two reloads", cfg: prefork.Config{MaxWorkers: 2}, want: 1, act: func(r *rig) {
			for range 2 {
				r.Deliver(hup)
				time.Sleep(time.Minute)
			}
		}},
		{name: "by hand", act: func(r *rig) { r.process(1).Exit(proc.Status{Signal: term}) }, want: 1},
		{name: "after a protocol error", act: func(r *rig) { r.process(1).Send([]byte("?")) }},
		{name: "it has called Context", onStart: func(t *testing.T, p *proctest.Process) {
			w, err := scoreboard.Open(int(p.Spec.Files[markerOf(t, p).Cell]), func() {})
			if err != nil {
				t.Fatal(err)
			}
			w.UseContext()
			reachStart(p)
		}},
		{name: "it exits with code 0", onSignal: exitWith(0)},
		{name: "it exits with code 143", onSignal: exitWith(143)},
		{name: "still starting", onStart: func(*testing.T, *proctest.Process) {}, cfg: prefork.Config{Readiness: prefork.Readiness{Timeout: -1}}},
		{name: "ready for a short time", onStart: func(_ *testing.T, p *proctest.Process) {
			time.AfterFunc(time.Minute-time.Second, func() { send(p, wire.Ready{}) })
		}},
		{name: "another signal", act: func(r *rig) { r.process(1).Exit(proc.Status{Signal: syscall.SIGINT}) }, onSignal: exitWith(0)},
		{name: "StopTimeout", onSignal: ignoreSignals},
		{name: "the stop signal is KILL", cfg: prefork.Config{TrapSignals: prefork.Signals{term: {Signal: syscall.SIGKILL}}}},
		{name: "a Command", cfg: prefork.Config{Command: []string{"/bin/sh"}}, onStart: func(*testing.T, *proctest.Process) {}},
		{name: "a Command, by hand", cfg: prefork.Config{Command: []string{"/bin/sh"}}, onStart: func(*testing.T, *proctest.Process) {}, act: func(r *rig) {
			r.process(1).Exit(proc.Status{Signal: term})
		}},
		{name: "it has executed another program", act: func(r *rig) {
			r.process(1).CloseControl()
			time.Sleep(time.Minute)
		}},
		{name: "a standby", cfg: prefork.Config{Standby: 1}, onStart: func(_ *testing.T, p *proctest.Process) {
			if markerOf(t, p).Slot < 0 {
				send(p, wire.Parked{})
			} else {
				reachStart(p)
			}
		}, onSignal: func(p *proctest.Process, sig syscall.Signal) {
			if markerOf(t, p).Slot < 0 {
				dieByTerm(p, sig)
			} else {
				endOnTerm(p, sig)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			synctest.Test(t, func(t *testing.T) {
				c.cfg.MaxWorkers = max(c.cfg.MaxWorkers, 1)
				c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
				if c.cfg.TrapSignals == nil {
					c.cfg.TrapSignals = hupAndTerm
				}
				onStart := reachStart
				if c.onStart != nil {
					onStart = func(p *proctest.Process) { c.onStart(t, p) }
				}
				if c.onSignal == nil {
					c.onSignal = dieByTerm
				}
				r := newRig(t, c.cfg, onStart, c.onSignal)
				done := r.startRun(context.Background())
				time.Sleep(time.Minute)
				if c.act != nil {
					c.act(r)
					synctest.Wait()
				}
				r.Deliver(term)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			if n := strings.Count(log.String(), workCut); n != c.want {
				t.Errorf("the log has it %d times, want %d:\n%s", n, c.want, &log)
			}
			if c.want > 0 && !strings.Contains(log.String(), "slot=0 gen=1 pid=1073741825 signal=SIGTERM") {
				t.Errorf("the log does not name the worker:\n%s", &log)
			}
		})
	}
}
