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
	"github.com/prefork-go/prefork/internal/wire"
)

// A protocol error affects only the worker that sent it.
func TestProtocolErrorOfWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(p *proctest.Process) {
			p.Send([]byte("R"))
			time.AfterFunc(time.Second, func() { p.Send([]byte("\x00GET / HTTP/1.1")) })
			time.AfterFunc(2*time.Second, func() { send(p, wire.Ready{}) })
		}, nil)
		done := r.startLoop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "protocol error"); n != 1 {
			t.Errorf("%d lines, want 1:\n%s", n, &log)
		}
		if s := r.Snapshot(); len(s.Workers) != 1 || s.Workers[0].State != prefork.StateReady {
			t.Errorf("%v", s)
		}
		r.Deliver(term)
		<-done
	})
}

// A worker that closes its socket before it is ready and keeps running is
// killed: it executed another program, or its own without the marker. A worker
// that is just exiting is not killed.
func TestDisconnectedWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, func(p *proctest.Process) {
			if p.ID == 1 {
				p.CloseControl()
			} else {
				p.Exit(proc.Status{Code: 7})
			}
		}, func(*proctest.Process, syscall.Signal) {})
		time.AfterFunc(time.Second/2, func() { r.Deliver(term) })
		r.Start()
		if len(r.exits) != 2 || r.exits[0].Status.Code != 7 || r.exits[0].Reason != prefork.ReasonCrashed {
			t.Fatalf("exits: %v", r.exits)
		}
		if e := r.exits[1]; e.Reason != prefork.ReasonReadyTimeout || e.Uptime > time.Second/2 {
			t.Errorf("the lost one: %v", e)
		}
		r.WaitAllChildren(context.Background())
	})
}

// A standby whose socket is closed does not get a slot: it is about to exit.
func TestDisconnectedStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := make(map[uint64]*proctest.Process)
		promoted := false
		r := newRig(t, prefork.Config{MaxWorkers: 1, Standby: 1, ErrRespawnInterval: -1, Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.StateEvent); ok && ev.Worker.Ordinal == 2 && ev.From == prefork.StateStandby && ev.Worker.State == prefork.StateStarting {
				promoted = true
			}
		}}, func(p *proctest.Process) {
			all[p.ID] = p
			if p.ID == 2 {
				send(p, wire.Parked{})
			} else {
				send(p, wire.Ready{})
			}
		}, nil)
		done := r.startLoop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := r.Snapshot(); s.Standbys != 1 {
			t.Fatalf("%v", s)
		}
		all[2].CloseControl()
		synctest.Wait()
		all[1].Exit(proc.Status{Signal: syscall.SIGKILL})
		synctest.Wait()
		all[2].Exit(proc.Status{Signal: syscall.SIGKILL})
		time.Sleep(5 * time.Second)
		if promoted {
			t.Error("it was given a slot")
		}
		r.Deliver(term)
		<-done
	})
}

// A worker that is not ready in time is killed for that reason, and its slot
// backs off.
func TestReadinessTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Readiness: prefork.Readiness{Timeout: 10 * time.Second}}, func(p *proctest.Process) {
			if p.ID > 1 {
				reachStart(p)
			}
		}, nil)
		done := r.startLoop()
		time.Sleep(10*time.Second - 1)
		r.wantSignals(1)
		time.Sleep(time.Nanosecond)
		r.wantSignals(1, kill)
		time.Sleep(time.Hour)
		synctest.Wait()
		if e := r.exits[0]; e.Reason != prefork.ReasonReadyTimeout || e.Uptime != 10*time.Second || len(r.fake.Started()) != 2 {
			t.Errorf("%v, then %d spawns", e, len(r.fake.Started()))
		}
		r.Deliver(term)
		<-done
	})
}
