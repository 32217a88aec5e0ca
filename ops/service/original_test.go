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

// The tests TestOriginal… assert the same as the 39 tests of Proc::tored 0.20.

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

// "Type checks": New and Run reject invalid arguments.
func TestOriginalChecks(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	loose := filepath.Join(dir, "loose")
	os.Mkdir(loose, 0o700)
	os.Chmod(loose, 0o777)
	for _, c := range []struct{ name, dir, want string }{
		{"", dir, "invalid name"}, {" \t", dir, "invalid name"}, {"../other", dir, "invalid name"}, {"a/b", dir, "invalid name"},
		{"x", file, "is not a directory"}, {"x", filepath.Join(dir, "none"), "no such file"}, {"x", loose, "remove the files of others"},
	} {
		if _, err := service.New(c.name, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%q, %q): %v, want %q", c.name, c.dir, err, c.want)
		}
	}
	s := newService(t)
	for _, sig := range []os.Signal{nil, syscall.SIGKILL, syscall.SIGSTOP} {
		s.TrapSignals = []os.Signal{sig}
		if err := s.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "cannot be trapped") {
			t.Errorf("TrapSignals %v: %v", sig, err)
		}
	}
}

// Run calls work until it returns false. The pid file contains the pid during
// that time only.
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
			t.Errorf("during work: PID = %d, IsRunning = %t", s.PID(), s.IsRunning())
		}
		checkRunning(t, s, os.Getpid())
		return n < 4, nil
	})
	if err != nil || n != 4 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if s.PID() != 0 || s.IsRunning() || exists(t, s.PIDFile) {
		t.Errorf("after Run: PID = %d, IsRunning = %t", s.PID(), s.IsRunning())
	}
	checkRunning(t, s, 0)
}

// A Stop within work ends the service after this call.
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

// A trapped signal logs a warning and ends the service after the current call.
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
	if !strings.Contains(log.String(), `level=WARN msg="signal caught" service=test signal=SIGINT`) {
		t.Errorf("log: %s", log.String())
	}
}

// Setting and clearing the flags is idempotent.
func TestOriginalFlags(t *testing.T) {
	s := newService(t)
	testFlag(t, s.StopFile, s.Stop, s.Start, s.Stopped)
	testFlag(t, s.PauseFile, s.Pause, s.Resume, s.Paused)
	s.Stop()
	s.Pause()
	if err := s.ClearFlags(); err != nil || s.Stopped() || s.Paused() {
		t.Errorf("ClearFlags: %v", err)
	}
}

func testFlag(t *testing.T, file string, set func() error, clear func() (bool, error), isSet func() bool) {
	t.Helper()
	if was, err := clear(); was || err != nil || isSet() {
		t.Errorf("%s: clearing an unset flag: %t, %v", file, was, err)
	}
	for range 2 {
		if err := set(); err != nil || !isSet() {
			t.Errorf("%s: set: %v, is set %t", file, err, isSet())
		}
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 0 {
		t.Errorf("%s: %v", file, err)
	}
	if was, err := clear(); !was || err != nil || isSet() {
		t.Errorf("%s: clear: %t, %v", file, was, err)
	}
}

// A service does not start again within its own work.
func TestOriginalNested(t *testing.T) {
	s := newService(t)
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		again, _ := service.New(s.Name(), s.Dir())
		err := again.Run(t.Context(), func(context.Context) (bool, error) {
			t.Error("the service runs twice")
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

// The stopped flag takes precedence over the paused flag.
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

// Run returns the error of work and does not recover its panic. It removes the
// pid file in both cases.
func TestOriginalFailure(t *testing.T) {
	s := newService(t)
	failure := errors.New("failed")
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { return true, failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
	func() {
		defer func() {
			if recover() != "a fault" {
				t.Error("Run does not panic")
			}
		}()
		s.Run(t.Context(), func(context.Context) (bool, error) { panic("a fault") })
	}()
	if exists(t, s.PIDFile) {
		t.Error("the pid file still exists")
	}
	checkRunning(t, s, 0)
}

// "The lock file is exclusive, released when the guard is dropped,
// re-lockable", and PID parses the pid file.
func TestOriginalLock(t *testing.T) {
	s := newService(t)
	if s.PID() != 0 {
		t.Errorf("PID = %d without a pid file", s.PID())
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
			t.Errorf("PID = %d after Close", s.PID())
		}
	}
	for content, want := range map[string]int{
		"123\n": 123, "123": 123, "123\n456\n": 123, "abc\n": 0, "12 34\n": 0, " 77\n": 0, "": 0, "\n5\n": 0, "-5\n": 0, "99999999999999\n": 0,
	} {
		os.WriteFile(s.PIDFile, []byte(content), 0o644)
		if got := s.PID(); got != want {
			t.Errorf("PID of %q = %d, want %d", content, got, want)
		}
		checkRunning(t, s, 0)
	}
}

// Rules 12 and 19: a service that is started while it is paused acquires the
// lock and waits. Iterations of the loop touch the pid file.
func TestPausedAtStart(t *testing.T) {
	s := newService(t)
	s.Heartbeat = time.Millisecond
	s.Pause()
	past := time.Now().Add(-time.Hour)
	var resumed atomic.Bool
	log := withLog(s)
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		for log.count("msg=paused") == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		checkRunning(t, s, os.Getpid())
		os.Chtimes(s.PIDFile, past, past)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			info, err := os.Stat(s.PIDFile)
			if err == nil && !info.ModTime().Equal(past) {
				break
			}
			if err != nil || time.Now().After(end) {
				t.Errorf("no heartbeat while paused: %v", err)
				break
			}
		}
		resumed.Store(true)
		s.Resume()
	}()
	defer func() { <-checked }()
	n := 0
	err := s.Run(t.Context(), func(context.Context) (bool, error) {
		if n++; !resumed.Load() {
			t.Error("work is called while the service is paused")
		}
		if n == 1 {
			os.Chtimes(s.PIDFile, past, past)
			time.Sleep(110 * time.Millisecond) // the file is touched at most ten times a second
			return true, nil
		}
		if info, err := os.Stat(s.PIDFile); err != nil || info.ModTime().Equal(past) {
			t.Errorf("no heartbeat of an iteration: %v", err)
		}
		return false, nil
	})
	if err != nil || n != 2 {
		t.Errorf("Run: %v after %d", err, n)
	}
}

// Rule 11: the pid file is removed by the process that runs the service, not by
// its children.
func TestChildrenKeepPIDFile(t *testing.T) {
	s := newService(t)
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, s, "starter")
	p.Expect(`^held by ` + strconv.Itoa(os.Getpid()) + `: service test: already running as process \d+$`)
	p.Wait()
	checkRunning(t, s, os.Getpid())
	l.Close()
}
