//go:build unix

package service

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Workers get the file that is locked when they are spawned.
func TestShareLockRestored(t *testing.T) {
	s, err := New("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.Logger = slog.New(slog.DiscardHandler)
	sp := &prefork.Spawn{Files: []*os.File{os.Stderr}}
	if s.ShareLock(sp); len(sp.Files) != 1 {
		t.Errorf("without a lock: %v", sp.Files)
	}
	p, _ := s.resolved()
	lock, err := s.acquireLock(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	s.setHeld(lock)
	for range 2 {
		sp = &prefork.Spawn{Files: []*os.File{os.Stderr}}
		s.ShareLock(sp)
		if len(sp.Files) != 2 || sp.Files[0] != os.Stderr || !pidfile.InPlace(sp.Files[1], s.PIDFile) {
			t.Errorf("files: %v", sp.Files)
		}
		os.Remove(s.PIDFile)
		if err := lock.restore(); err != nil {
			t.Fatal(err)
		}
		// The worker is spawned after ShareLock, or a successor.
		if !pidfile.InPlace(sp.Files[1], s.PIDFile) {
			t.Error("the worker would get the removed file")
		}
	}
}

// A lock holder with an unknown pid may be the predecessor as long as that lives:
// it may not have written its pid yet.
func TestUnknownHolder(t *testing.T) {
	s, err := New("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.Logger = slog.New(slog.DiscardHandler)
	p, _ := s.resolved()
	lock, err := s.acquireLock(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	os.Remove(s.PIDFile)
	other, err := os.Create(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	lock.predecessor = os.Getppid()
	if err := lock.restore(); err != errPredecessor {
		t.Errorf("while the predecessor lives: %v", err)
	}
	fmt.Fprintln(other, os.Getpid())
	if err := lock.restore(); !errors.Is(err, ErrLockLost) {
		t.Errorf("of another process: %v", err)
	}
	other.Truncate(0)
	lock.predecessor = 1 << 30
	if err := lock.restore(); !errors.Is(err, ErrLockLost) {
		t.Errorf("of a dead predecessor: %v", err)
	}
}

// Attributes of flags are changes, and those of the pid file are heartbeats.
func TestHandleEvent(t *testing.T) {
	w := &fileWatcher{files: paths{"/run/test.pid", "/run/test.stopped", "/run/test.paused"}}
	for _, c := range []struct {
		name string
		op   fsnotify.Op
		want bool
	}{
		{"test.pid", fsnotify.Chmod, false},
		{"test.pid", fsnotify.Write, true},
		{"test.pid", fsnotify.Remove, true},
		{"test.pid", fsnotify.Write | fsnotify.Chmod, true},
		{"test.stopped", fsnotify.Chmod, true},
		{"test.paused", fsnotify.Chmod, true},
		{"test.paused", fsnotify.Create, true},
		{"other.pid", fsnotify.Create, false},
	} {
		if got := w.handleEvent(fsnotify.Event{Name: "/run/" + c.name, Op: c.op}, true); got != c.want {
			t.Errorf("%s %v: %t, want %t", c.name, c.op, got, c.want)
		}
	}
}

// Files are examined every 500 ms, or more often if Poll or the file system
// demands that.
func TestInterval(t *testing.T) {
	for _, c := range []struct {
		poll     time.Duration
		notified bool
		want     time.Duration
	}{
		{0, true, 500 * time.Millisecond},
		{0, false, 200 * time.Millisecond},
		{-1, true, 500 * time.Millisecond},
		{-1, false, 200 * time.Millisecond},
		{300 * time.Millisecond, false, 300 * time.Millisecond},
		{time.Millisecond, true, time.Millisecond},
		{time.Minute, true, 500 * time.Millisecond},
		{time.Minute, false, 500 * time.Millisecond},
	} {
		if got := interval(c.poll, c.notified); got != c.want {
			t.Errorf("Poll %v, notified %t: %v, want %v", c.poll, c.notified, got, c.want)
		}
	}
}
