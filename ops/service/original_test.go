//go:build unix

package service_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
)

// What the 39 tests of Proc::tored 0.20 assert.

func TestOriginalNames(t *testing.T) {
	dir := t.TempDir()
	s, err := service.New("some name", dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "some name" || s.Dir() != dir || s.PIDFile != filepath.Join(dir, "some name.pid") ||
		s.StopFile != filepath.Join(dir, "some name.stopped") || s.PauseFile != filepath.Join(dir, "some name.paused") {
		t.Errorf("%+v", s)
	}
}

// "Type checks": what cannot be a service.
func TestOriginalChecks(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	loose := filepath.Join(dir, "loose")
	os.Mkdir(loose, 0o700)
	os.Chmod(loose, 0o777)
	for _, c := range []struct{ name, dir, want string }{
		{"", dir, "is no name"}, {" \t", dir, "is no name"}, {"../other", dir, "is no name"}, {"a/b", dir, "is no name"},
		{"x", file, "is no directory"}, {"x", filepath.Join(dir, "none"), "no such file"}, {"x", loose, "remove the files of others"},
	} {
		if _, err := service.New(c.name, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%q, %q): %v, want %q", c.name, c.dir, err, c.want)
		}
	}
	if os.Geteuid() != 0 { // root may write everywhere
		os.Chmod(dir, 0o500)
		if _, err := service.New("x", dir); err == nil || !strings.Contains(err.Error(), "cannot be written to") {
			t.Errorf("New in a directory that is not writable: %v", err)
		}
		os.Chmod(dir, 0o700)
	}
	s := newService(t)
	for _, sig := range []os.Signal{nil, syscall.SIGKILL, syscall.SIGSTOP} {
		s.TrapSignals = []os.Signal{sig}
		if err := s.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "cannot be trapped") {
			t.Errorf("TrapSignals %v: %v", sig, err)
		}
	}
}

// The callback runs until it says false; the pid file names the process meanwhile, and no other time.
func TestOriginalRun(t *testing.T) {
	s := newService(t)
	n := 0
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		n++
		content, _ := os.ReadFile(s.PIDFile)
		if want := strconv.Itoa(os.Getpid()) + "\n"; string(content) != want {
			t.Errorf("pid file: %q, want %q", content, want)
		}
		if s.PID() != os.Getpid() || !s.IsRunning() {
			t.Errorf("during the callback PID = %d, IsRunning = %t", s.PID(), s.IsRunning())
		}
		wantRunning(t, s, os.Getpid())
		return n < 4, nil
	})
	if err != nil || n != 4 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if s.PID() != 0 || s.IsRunning() || exists(t, s.PIDFile) {
		t.Errorf("after it PID = %d, IsRunning = %t", s.PID(), s.IsRunning())
	}
	wantRunning(t, s, 0)
}

// A stop within a callback is the end after this callback, and no later.
func TestOriginalStopInside(t *testing.T) {
	s := newService(t)
	n := 0
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		if n++; n == 4 {
			return true, s.Stop()
		}
		return true, nil
	})
	if err != nil || n != 4 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { n++; return false, nil }); !errors.Is(err, service.ErrStopped) || n != 4 {
		t.Errorf("Run when stopped: %v after %d", err, n)
	}
}

// A trapped signal warns and ends the loop after the callback.
func TestOriginalSignal(t *testing.T) {
	s := newService(t)
	s.TrapSignals = []os.Signal{syscall.SIGINT}
	var log bytes.Buffer
	s.Logger = slog.New(slog.NewTextHandler(&log, nil))
	n := 0
	err := s.Run(t.Context(), func(ctx context.Context) (bool, error) {
		if n++; n == 4 {
			syscall.Kill(os.Getpid(), syscall.SIGINT)
			<-ctx.Done()
		}
		return true, nil
	})
	if err != nil || n != 4 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if !strings.Contains(log.String(), "Caught SIGINT") {
		t.Errorf("log: %s", log.String())
	}
}

func TestOriginalTruth(t *testing.T) {
	s := newService(t)
	for _, f := range []struct {
		name  string
		set   func() error
		unset func() (bool, error)
		is    func() bool
		file  string
	}{{"stop", s.Stop, s.Start, s.Stopped, s.StopFile}, {"pause", s.Pause, s.Resume, s.Paused, s.PauseFile}} {
		if was, err := f.unset(); was || err != nil || f.is() {
			t.Errorf("%s: unset of nothing: %t, %v", f.name, was, err)
		}
		for range 2 {
			if err := f.set(); err != nil || !f.is() {
				t.Errorf("%s: set: %v, is %t", f.name, err, f.is())
			}
		}
		if info, err := os.Stat(f.file); err != nil || info.Size() != 0 {
			t.Errorf("%s: %v", f.name, err)
		}
		if was, err := f.unset(); !was || err != nil || f.is() {
			t.Errorf("%s: unset: %t, %v", f.name, was, err)
		}
	}
	s.Stop()
	s.Pause()
	if err := s.ClearFlags(); err != nil || s.Stopped() || s.Paused() {
		t.Errorf("ClearFlags: %v", err)
	}
}

// The same service within its own callback does not start.
func TestOriginalNested(t *testing.T) {
	s := newService(t)
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		again, _ := service.New(s.Name(), s.Dir())
		err := again.Run(t.Context(), func(context.Context) (bool, error) {
			t.Error("it runs twice")
			return false, nil
		})
		var running *service.RunningError
		if !errors.As(err, &running) || running.PID != os.Getpid() || !errors.Is(err, service.ErrRunning) {
			t.Errorf("nested Run: %v", err)
		}
		return false, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Stopped beats paused.
func TestOriginalStoppedAndPaused(t *testing.T) {
	s := newService(t)
	n := 0
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		n++
		return true, errors.Join(s.Pause(), s.Stop())
	})
	if err != nil || n != 1 {
		t.Errorf("Run: %v after %d", err, n)
	}
}

// A callback's error, or panic, comes out; the pid file is gone.
func TestOriginalFailure(t *testing.T) {
	s := newService(t)
	failure := errors.New("failed")
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { return true, failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
	func() {
		defer func() {
			if recover() != "a fault" {
				t.Error("the panic does not come out")
			}
		}()
		s.Run(t.Context(), func(context.Context) (bool, error) { panic("a fault") })
	}()
	if exists(t, s.PIDFile) {
		t.Error("the pid file is left")
	}
	wantRunning(t, s, 0)
}

// "The lock file is exclusive, released when the guard is dropped, re-lockable", and what pid files say.
func TestOriginalLock(t *testing.T) {
	s := newService(t)
	if s.PID() != 0 {
		t.Errorf("PID = %d at first", s.PID())
	}
	for range 2 {
		l, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) {
			t.Errorf("second lock: %v", err)
		}
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		if s.PID() != 0 || exists(t, s.PIDFile) {
			t.Errorf("PID = %d after it", s.PID())
		}
	}
	for content, want := range map[string]int{
		"123\n": 123, "123": 123, "123\n456\n": 123, "abc\n": 0, "12 34\n": 0, " 77\n": 0, "": 0, "\n5\n": 0, "-5\n": 0, "99999999999999\n": 0,
	} {
		os.WriteFile(s.PIDFile, []byte(content), 0o644)
		if got := s.PID(); got != want {
			t.Errorf("PID of %q = %d, want %d", content, got, want)
		}
		wantRunning(t, s, 0)
	}
}

// Rules 12 and 19: a service that starts when it is paused has the name, and waits; turns are a heartbeat.
func TestPausedAtStart(t *testing.T) {
	s := newService(t)
	s.Heartbeat = time.Millisecond
	s.Pause()
	past := time.Now().Add(-time.Hour)
	var resumed atomic.Bool
	timer := time.AfterFunc(20*time.Millisecond, func() {
		wantRunning(t, s, os.Getpid())
		os.Chtimes(s.PIDFile, past, past)
		time.Sleep(20 * time.Millisecond)
		if info, err := os.Stat(s.PIDFile); err != nil || info.ModTime().Equal(past) {
			t.Errorf("no heartbeat while paused: %v", err)
		}
		resumed.Store(true)
		s.Resume()
	})
	defer timer.Stop()
	n := 0
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		if n++; !resumed.Load() {
			t.Error("the callback runs while the service is paused")
		}
		if n == 1 {
			os.Chtimes(s.PIDFile, past, past)
			time.Sleep(110 * time.Millisecond) // it is touched ten times a second at the most
			return true, nil
		}
		if info, err := os.Stat(s.PIDFile); err != nil || info.ModTime().Equal(past) {
			t.Errorf("no heartbeat in a turn: %v", err)
		}
		return false, nil
	})
	if err != nil || n != 2 {
		t.Errorf("Run: %v after %d", err, n)
	}
}

// Rule 11: only who has it gives it free, not what has been started meanwhile.
func TestChildrenLeaveThePIDFile(t *testing.T) {
	s := newService(t)
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := startNow(t, s, "starter")
	p.Expect(`^held by ` + strconv.Itoa(os.Getpid()) + `: service test: it is already running, as process \d+$`)
	p.Wait()
	wantRunning(t, s, os.Getpid())
	l.Close()
}
