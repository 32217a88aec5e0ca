//go:build unix

package service_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("manager", manager)
	preforktest.Register("web", web)
	programs["failing-successor"] = failingSuccessor
}

// runAttached runs a Manager as the service. The optional second argument of
// the program is "heartbeat", "wait" to wait for the lock, or "poll".
func runAttached(cfg prefork.Config, before func(*prefork.Manager), work func(*prefork.Worker) error) {
	s := programService()
	s.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
	if len(os.Args) > 2 {
		switch os.Args[2] {
		case "heartbeat":
			s.Heartbeat = time.Millisecond
		case "wait":
			s.LockTimeout = -1
		case "poll":
			s.Poll = time.Millisecond
		}
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	detach, err := s.Attach(pm)
	if err != nil {
		report("error: %v", err)
		return
	}
	if before != nil {
		before(pm)
	}
	err = pm.Run(context.Background(), work)
	report("manager %d ended %v, %v", os.Getpid(), err, detach())
}

// manager runs two idle workers.
func manager() { runManager(func() {}) }

// runManager runs two idle workers, and calls attached after Attach.
func runManager(attached func()) {
	cfg := prefork.Config{
		MaxWorkers:  2,
		TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGUSR2: {Upgrade: true}},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.PauseEvent:
				report("event: pause")
			case prefork.PausedEvent:
				report("event: slot %d paused", ev.Worker.Slot)
			case prefork.ResumeEvent:
				report("event: resume")
			case prefork.UpgradeFailedEvent:
				report("event: upgrade failed")
			}
		},
	}
	runAttached(cfg, func(*prefork.Manager) {
		attached()
		if !prefork.IsWorker() {
			report("manager %d runs", os.Getpid())
		}
	}, func(w *prefork.Worker) error {
		for n := 0; w.Checkpoint(); n++ {
			if n == 0 {
				report("worker %d of manager %d works", w.Slot(), w.ManagerPID())
			}
			select {
			case <-w.Pausing():
			case <-w.Context().Done():
			}
		}
		return nil
	})
}

// The stopped flag shuts the Manager down and prevents a start.
func TestAttachStop(t *testing.T) {
	s := newService(t)
	p := start(t, s, "manager")
	p.ExpectN(2, `^worker \d of manager \d+ works$`)
	checkRunning(t, s, p.PID())
	again := start(t, s, "manager")
	again.Expect(`^error: service test: already running as process ` + strconv.Itoa(p.PID()) + `$`)
	again.Wait()
	if out, err := s.Zap(t.Context(), service.Escalation{}); out != service.Exited || err != nil {
		t.Errorf("Zap: %v, %v", out, err)
	}
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
	if exists(t, s.PIDFile) {
		t.Error("the pid file still exists")
	}
	again = start(t, s, "manager")
	again.Expect(`^error: service test: stopped flag is set: remove \S+/test.stopped$`)
	again.Wait()
}

// The paused flag pauses the workers, also if it is set before the start.
func TestAttachPause(t *testing.T) {
	s := newService(t)
	s.Pause()
	p := start(t, s, "manager")
	p.ExpectN(2, `^event: slot \d paused$`)
	checkRunning(t, s, p.PID())
	for range 3 {
		s.Resume()
		p.Expect(`^event: resume$`)
		s.Pause()
		p.Expect(`^event: pause$`)
		p.ExpectN(2, `^event: slot \d paused$`)
	}
	s.Stop() // takes precedence over the paused flag
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

// hasHeartbeat reports whether the pid file is touched within 20 ms.
func hasHeartbeat(t *testing.T, s *service.Service) bool {
	t.Helper()
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(s.PIDFile, past, past); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Millisecond); ; time.Sleep(time.Millisecond) {
		info, err := os.Stat(s.PIDFile)
		if err != nil {
			t.Fatal(err)
		}
		if touched := !info.ModTime().Equal(past); touched || time.Now().After(end) {
			return touched
		}
	}
}

// The active manager sends the heartbeat, paused or not. Neither its workers
// nor its successor keep the heartbeat up while the manager is stopped.
func TestAttachHeartbeat(t *testing.T) {
	s := newService(t)
	p := start(t, s, "manager")
	p.ExpectN(2, ` works$`)
	if hasHeartbeat(t, s) {
		t.Error("heartbeat without Service.Heartbeat")
	}
	s.Stop()
	p.WaitGone()
	s.Start()

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p = preforktest.New(t, "waiting-successor", s.Dir(), "heartbeat")
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectN(2, ` works$`)
	preforktest.WaitFor(t, "a heartbeat", func() bool { return hasHeartbeat(t, s) })
	s.Pause()
	p.ExpectN(2, `^event: slot \d paused$`)
	preforktest.WaitFor(t, "a heartbeat while paused", func() bool { return hasHeartbeat(t, s) })
	s.Resume()
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor waits$`)
	p.Signal(syscall.SIGSTOP)
	preforktest.WaitFor(t, "no heartbeat while the manager is stopped", func() bool {
		for range 5 { // on a busy machine one check may miss a heartbeat
			if hasHeartbeat(t, s) {
				return false
			}
		}
		return true
	})
	p.Signal(syscall.SIGCONT)
	preforktest.WaitFor(t, "a heartbeat again", func() bool { return hasHeartbeat(t, s) })
	w.Close()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	preforktest.WaitFor(t, "the successor's heartbeat", func() bool { return hasHeartbeat(t, s) })
	s.Stop()
	p.WaitGone()
}

// After a SIGKILL of the manager the service can start again at once, although
// workers of the dead manager may still run.
func TestAttachKilled(t *testing.T) {
	s := newService(t)
	for range 3 {
		p := start(t, s, "manager")
		p.Expect(`^manager \d+ runs$`)
		p.Kill()
		p.Wait()
		checkRunning(t, s, 0)
	}
}

// A Manager whose pid file was removed shuts down if another process has
// acquired the lock since then.
func TestAttachLockLost(t *testing.T) {
	s := newService(t)
	p := start(t, s, "manager")
	p.ExpectN(2, ` works$`)
	l := stealLock(t, s, p)
	p.Expect(`lock lost, stopping`)
	p.Expect(`^manager \d+ ended <nil>, service test: pid file was removed and another process has acquired the lock$`)
	p.WaitGone()
	checkRunning(t, s, os.Getpid())
	l.Close()
}

// A successor that fails leaves the lock with the old manager.
func TestAttachSuccessorFails(t *testing.T) {
	s := newService(t)
	p := start(t, s, "failing-successor")
	p.ExpectN(2, ` works$`)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor exits$`)
	p.Expect(`^event: upgrade failed$`)
	checkRunning(t, s, p.PID())
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

func init() { programs["other-user"] = otherUser }

// otherUser creates its service after New. There workers already run as another
// user.
func otherUser() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Resources: prefork.Resources{User: otherUID}})
	if err != nil {
		log.Fatal(err)
	}
	detach, err := programService().Attach(pm)
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		report("user %d works", os.Geteuid())
		<-w.Context().Done()
		return nil
	})
	report("manager %d ended %v, %v", os.Getpid(), err, detach())
}

// Workers need no access to the directory of the service.
func TestAttachConfinedWorkers(t *testing.T) {
	s := newService(t)
	os.Chmod(s.Dir(), 0o700)
	p := preforktest.New(t, "other-user", s.Dir())
	needOtherUser(t)
	p.Start()
	if got := p.Expect(`^(user ` + otherUID + ` works|error: .*)$`)[0]; got != "user "+otherUID+" works" {
		t.Error(got)
	}
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

// Attach rejects TrapSignals.
func TestAttachTraps(t *testing.T) {
	s := newService(t)
	s.TrapSignals = []os.Signal{syscall.SIGINT}
	if _, err := s.Attach(nil); err == nil {
		t.Error("Attach accepts TrapSignals")
	}
}

// web serves HTTP with 20 workers. Each time all workers have paused, it
// reports how many requests they started after that.
func web() {
	var pm atomic.Pointer[prefork.Manager]
	reported := true
	cfg := prefork.Config{MaxWorkers: 20, Logger: slog.New(slog.DiscardHandler), Observe: func(ev prefork.Event) {
		switch ev.(type) {
		case prefork.PauseEvent:
			reported = false
		case prefork.ExitEvent:
			report("exit: %v", ev)
		}
		if reported || !pm.Load().Snapshot().AllPaused() {
			return
		}
		reported = true
		served := requests(pm.Load())
		go func() {
			time.Sleep(20 * time.Millisecond) // time to serve, if a worker had not paused
			report("all paused, %d served since", requests(pm.Load())-served)
		}()
	}}
	var ln net.Listener
	runAttached(cfg, func(m *prefork.Manager) {
		var err error
		pm.Store(m)
		if ln, err = m.Listen("tcp", "127.0.0.1:0"); err != nil {
			log.Fatal(err)
		}
		if !prefork.IsWorker() {
			report("listening on %v", ln.Addr())
		}
	}, func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			w.Served(1)
			time.Sleep(time.Millisecond)
			fmt.Fprintln(rw, os.Getpid())
		})})
	})
}

// requests returns the number of requests that the workers have started.
func requests(pm *prefork.Manager) (n uint64) {
	for _, w := range pm.Snapshot().Workers {
		n += w.Requests
	}
	return n
}

// A Manager with 20 workers is paused and resumed under load. No worker exits,
// no request fails, and no request starts after all workers have paused.
func TestPausesUnderLoad(t *testing.T) {
	n := 2
	if *long {
		n = 100
	}
	s := newService(t)
	p := start(t, s, "web")
	address := p.Expect(`^listening on (\S+)$`)[1]
	clients := loadgen.Start(loadgen.Config{Network: "tcp", Address: address, KeepAlive: 20, Fresh: 5, MaxTime: 10 * time.Minute})
	var slowest time.Duration
	for range n {
		before := clients.Result().OK
		preforktest.WaitFor(t, "requests after a pause", func() bool { return clients.Result().OK > before+25 })
		from := time.Now()
		s.Pause()
		got := p.Expect(`^(exit: .*|all paused, (\d+) served since)$`)
		if got[2] != "0" {
			t.Error(got[0])
		}
		slowest = max(slowest, time.Since(from))
		s.Resume()
	}
	result := clients.Stop()
	t.Logf("%d pauses, the slowest complete after %v; %d requests, %d failed", n, slowest, result.OK, result.Failed)
	if result.Failed > 0 {
		t.Errorf("%v", result.Errors)
	}
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}
