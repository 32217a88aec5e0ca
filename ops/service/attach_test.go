//go:build unix

package service_test

import (
	"context"
	"fmt"
	"io"
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
	programs["managed"] = managed
	programs["web"] = web
	programs["dying"] = dying
}

// manage is the life of a program with a Manager under the service of its first argument. With "beat" as the second it has
// a heartbeat, with "waits" it waits for the name.
func manage(cfg prefork.Config, before func(*prefork.Manager), work func(*prefork.Worker) error) {
	s := in()
	s.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
	if len(os.Args) > 2 {
		switch os.Args[2] {
		case "beat":
			s.Heartbeat = time.Millisecond
		case "waits":
			s.LockTimeout = -1
		}
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	detach, err := s.Attach(pm)
	if err != nil {
		say("cannot: %v", err)
		return
	}
	if before != nil {
		before(pm)
	}
	err = pm.Run(context.Background(), work)
	say("manager %d ended %v, %v", os.Getpid(), err, detach())
}

// managed has two workers that do nothing.
func managed() { waiting(func() {}) }

// waiting is managed, with something to do once the name is had.
func waiting(before func()) {
	cfg := prefork.Config{
		MaxWorkers:  2,
		TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGUSR2: {Upgrade: true}},
		Observe: func(ev prefork.Event) {
			switch ev.(type) {
			case prefork.PauseEvent, prefork.PausedEvent, prefork.ResumeEvent:
				say("event: %v", ev)
			}
		},
	}
	manage(cfg, func(*prefork.Manager) {
		before()
		if !prefork.IsWorker() {
			say("manager %d runs", os.Getpid())
		}
	}, func(w *prefork.Worker) error {
		for n := 0; w.Checkpoint(); n++ {
			if n == 0 {
				say("worker %d of manager %d works", w.Slot(), w.ManagerPID())
			}
			select {
			case <-w.Pausing():
			case <-w.Context().Done():
			}
		}
		return nil
	})
}

// The stopped flag is a shutdown, and a refusal to start.
func TestAttachStop(t *testing.T) {
	s := newService(t)
	p := start(t, s, "managed")
	p.ExpectN(2, `^worker \d of manager \d+ works$`)
	wantRunning(t, s, p.PID())
	again := start(t, s, "managed")
	again.Expect(`^cannot: service test: it is already running, as process ` + strconv.Itoa(p.PID()) + `$`)
	again.Wait()
	if out, err := s.Zap(t.Context(), service.Escalation{}); out != service.Gone || err != nil {
		t.Errorf("Zap: %v, %v", out, err)
	}
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
	if exists(t, s.PIDFile) {
		t.Error("the pid file is left")
	}
	again = start(t, s, "managed")
	again.Expect(`^cannot: service test: its stopped flag is set$`)
	again.Wait()
}

// The paused flag pauses the workers, who say so; it holds for a start too.
func TestAttachPause(t *testing.T) {
	s := newService(t)
	s.Pause()
	p := start(t, s, "managed")
	p.ExpectN(2, `^event: worker \d+ \(slot \d, generation 1\) ready, paused$`)
	wantRunning(t, s, p.PID())
	for range 3 {
		s.Resume()
		p.Expect(`^event: resume requested$`)
		s.Pause()
		p.Expect(`^event: pause requested$`)
		p.ExpectN(2, `^event: worker \d+ \(slot \d, generation 1\) ready, paused$`)
	}
	s.Stop() // beats paused
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

// beats tells whether the pid file is touched within a moment.
func beats(t *testing.T, s *service.Service) bool {
	t.Helper()
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(s.PIDFile, past, past); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	info, err := os.Stat(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	return !info.ModTime().Equal(past)
}

// The heartbeat is that of the manager which rules, paused or not: it ends with that, whatever its workers and its successor do.
func TestAttachHeartbeat(t *testing.T) {
	s := newService(t)
	p := start(t, s, "managed")
	p.ExpectN(2, ` works$`)
	if beats(t, s) {
		t.Error("a heartbeat that nobody has asked for")
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
	p = preforktest.New(t, "awaited", s.Dir(), "beat")
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectN(2, ` works$`)
	preforktest.WaitFor(t, "a heartbeat", func() bool { return beats(t, s) })
	s.Pause()
	p.ExpectN(2, ` ready, paused$`)
	preforktest.WaitFor(t, "a heartbeat in the pause", func() bool { return beats(t, s) })
	s.Resume()
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor waits$`)
	p.Signal(syscall.SIGSTOP)
	preforktest.WaitFor(t, "no heartbeat while the manager is stopped", func() bool { return !beats(t, s) })
	p.Signal(syscall.SIGCONT)
	preforktest.WaitFor(t, "a heartbeat again", func() bool { return beats(t, s) })
	w.Close()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	preforktest.WaitFor(t, "the successor's heartbeat", func() bool { return beats(t, s) })
	s.Stop()
	p.WaitGone()
}

// kill -9 of the manager: the next starts at once, though workers may still be ending.
func TestAttachKilled(t *testing.T) {
	s := newService(t)
	for range 3 {
		p := start(t, s, "managed")
		p.Expect(`^manager \d+ runs$`)
		p.Kill()
		p.Wait()
		wantRunning(t, s, 0)
	}
}

// The successor has the name at once; at no time is it free. A successor that fails leaves it where it was.
func TestAttachSuccessor(t *testing.T) {
	s := newService(t)
	s.Pause() // the successor is paused as well
	p := start(t, s, "managed")
	p.ExpectN(2, `ready, paused$`)
	var free, looks atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				looks.Add(1)
				if _, running, err := s.Running(); !running || err != nil {
					free.Add(1)
				}
			}
		}
	}()
	old := p.PID()
	for range 2 {
		if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(p.Expect(`^manager (\d+) runs$`)[1])
		p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, old))
		preforktest.WaitFor(t, "the successor's pid in the file", func() bool { return s.PID() == pid })
		wantRunning(t, s, pid)
		old = pid
	}
	close(done)
	<-ended
	if n := free.Load(); n > 0 {
		t.Errorf("the name was free at %d of %d looks", n, looks.Load())
	}
	s.Stop()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, old))
	p.WaitGone()
	if exists(t, s.PIDFile) {
		t.Error("the pid file is left")
	}
}

// dying is managed, but its successors end before they are ready.
func dying() {
	successor := prefork.PassedFile("dying") != nil
	prefork.PassFile("dying", os.Stdout)
	waiting(func() {
		if successor {
			say("the successor ends")
			os.Exit(3)
		}
	})
}

func init() { programs["awaited"] = awaited }

// awaited is managed, but its successors wait for the end of the standard input.
func awaited() {
	successor := prefork.PassedFile("awaited") != nil
	prefork.PassFile("awaited", os.Stdout)
	waiting(func() {
		if successor {
			say("the successor waits")
			io.Copy(io.Discard, os.Stdin)
		}
	})
}

// A pid file that is removed while a successor is under way is made anew by the manager before it; the successor has the name when that
// is gone.
func TestAttachRemovedBeforeSuccessor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := newService(t)
	p := preforktest.New(t, "awaited", s.Dir())
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectN(2, ` works$`)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor waits$`)
	os.Remove(s.PIDFile)
	p.Expect(`it is there again`)
	wantRunning(t, s, p.PID())
	w.Close()
	successor, _ := strconv.Atoi(p.Expect(`^manager (\d+) runs$`)[1])
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	preforktest.WaitFor(t, "the successor's pid in the file", func() bool { return s.PID() == successor })
	wantRunning(t, s, successor)
	s.Stop()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
	p.WaitGone()
}

func TestAttachSuccessorFails(t *testing.T) {
	s := newService(t)
	p := start(t, s, "dying")
	p.ExpectN(2, ` works$`)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^the successor ends$`)
	p.Expect(`upgrade failed`)
	wantRunning(t, s, p.PID())
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

func init() { programs["confined"] = confined }

// confined makes its service behind New, where workers are another user already.
func confined() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Resources: prefork.Resources{User: nobody}})
	if err != nil {
		log.Fatal(err)
	}
	detach, err := in().Attach(pm)
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		say("user %d works", os.Geteuid())
		<-w.Context().Done()
		return nil
	})
	say("manager %d ended %v, %v", os.Getpid(), err, detach())
}

// Workers that may not see the service's directory work.
func TestAttachConfinedWorkers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("run as root")
	}
	s := newService(t)
	os.Chmod(s.Dir(), 0o700)
	p := start(t, s, "confined")
	if got := p.Expect(`^(user ` + nobody + ` works|cannot: .*)$`)[0]; got != "user "+nobody+" works" {
		t.Error(got)
	}
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}

func TestAttachTraps(t *testing.T) {
	s := newService(t)
	s.TrapSignals = []os.Signal{syscall.SIGINT}
	if _, err := s.Attach(nil); err == nil {
		t.Error("a service with signals of its own is attached")
	}
}

// web serves HTTP with 20 workers. It says when all have paused, and what they have served by then.
func web() {
	var pm atomic.Pointer[prefork.Manager]
	said := true
	cfg := prefork.Config{MaxWorkers: 20, Logger: slog.New(slog.DiscardHandler), Observe: func(ev prefork.Event) {
		switch ev.(type) {
		case prefork.PauseEvent:
			said = false
		case prefork.ExitEvent:
			say("exit: %v", ev)
		}
		if said || !pm.Load().Snapshot().AllPaused() {
			return
		}
		said = true
		served := requests(pm.Load())
		go func() {
			// Nothing is begun any more: so it still is a while after.
			time.Sleep(20 * time.Millisecond)
			say("all paused, %d served since", requests(pm.Load())-served)
		}()
	}}
	var ln net.Listener
	manage(cfg, func(m *prefork.Manager) {
		var err error
		pm.Store(m)
		if ln, err = m.Listen("tcp", "127.0.0.1:0"); err != nil {
			log.Fatal(err)
		}
		if !prefork.IsWorker() {
			say("listens on %v", ln.Addr())
		}
	}, func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			w.Served(1)
			time.Sleep(time.Millisecond)
			fmt.Fprintln(rw, os.Getpid())
		})})
	})
}

// requests is how many requests the workers have begun.
func requests(pm *prefork.Manager) (n uint64) {
	for _, w := range pm.Snapshot().Workers {
		n += w.Requests
	}
	return n
}

// Pauses of a Manager with 20 workers under load: no worker ends, no request fails, and when it is said that all have paused, they
// have.
func TestPausesUnderLoad(t *testing.T) {
	n := 5
	if *long {
		n = 100
	}
	s := newService(t)
	p := start(t, s, "web")
	address := p.Expect(`^listens on (\S+)$`)[1]
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
