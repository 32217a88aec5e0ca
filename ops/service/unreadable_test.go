//go:build unix

package service_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// logLines collects the lines of a logger.
type logLines struct {
	mu  sync.Mutex
	all []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(line))
	return len(line), nil
}

// count returns the number of lines that contain a text.
func (l *logLines) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// withLog makes s log to the returned lines.
func withLog(s *service.Service) *logLines {
	l := new(logLines)
	s.Logger = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// hideDir makes the directory of a flag unreachable, so that examining the flag
// fails with an error. The contents are in aside meanwhile.
type hideDir struct {
	name string
	hide func(dir string) error
	want error
}

var hideDirs = []hideDir{
	{"link to itself", func(dir string) error { return os.Symlink(filepath.Base(dir), dir) }, syscall.ELOOP},
	{"link to a long name", func(dir string) error { return os.Symlink(strings.Repeat("n", 300), dir) }, syscall.ENAMETOOLONG},
	{"file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, syscall.ENOTDIR},
	{"missing", func(string) error { return nil }, fs.ErrNotExist},
	{"no permission", func(dir string) error { return os.Mkdir(dir, 0) }, fs.ErrPermission},
}

// A flag that cannot be examined keeps its last known state. That is logged
// once.
func TestUnreadableFlag(t *testing.T) {
	for _, c := range hideDirs {
		t.Run(c.name, func(t *testing.T) {
			if c.want == fs.ErrPermission && os.Geteuid() == 0 {
				t.Skip("root may examine every file")
			}
			s := newService(t)
			dir, aside := filepath.Join(s.Dir(), "flags"), filepath.Join(s.Dir(), "aside")
			s.PauseFile = filepath.Join(dir, "paused")
			s.Poll = time.Millisecond // to examine it often
			log := withLog(s)
			if err := errors.Join(os.Mkdir(dir, 0o755), s.Pause()); err != nil {
				t.Fatal(err)
			}
			l, err := s.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			continued := make(chan bool, 1)
			go func() { continued <- l.Next() }()
			preforktest.WaitFor(t, "the pause", func() bool { return log.count("msg=paused") == 1 })
			if err := errors.Join(os.Rename(dir, aside), c.hide(dir)); err != nil {
				t.Fatal(err)
			}
			preforktest.WaitFor(t, "the log", func() bool { return log.count("flag cannot be examined") > 0 })
			time.Sleep(20 * time.Millisecond)
			if !s.Paused() {
				t.Error("Paused: false")
			}
			if stopped, paused, err := s.Flags(); stopped || !paused || !errors.Is(err, c.want) {
				t.Errorf("Flags: %t, %t, %v", stopped, paused, err)
			}
			if len(continued) > 0 {
				t.Error("the loop continues")
			}
			// Between rename and hide, the directory may have been seen missing.
			if n := log.count("flag cannot be examined"); n > 2 {
				t.Errorf("logged %d times", n)
			}
			os.Remove(filepath.Join(aside, "paused"))
			os.Remove(dir)
			if err := os.Rename(aside, dir); err != nil {
				t.Fatal(err)
			}
			if !<-continued {
				t.Error("the loop ends")
			}
			if _, paused, err := s.Flags(); paused || err != nil {
				t.Errorf("Flags after Resume: %t, %v", paused, err)
			}
		})
	}
}

// A service does not start while a flag cannot be examined: it may be set. A
// directory that does not exist contains no flag.
func TestUnreadableFlagAtStart(t *testing.T) {
	for _, c := range hideDirs {
		if c.want == fs.ErrPermission && os.Geteuid() == 0 {
			continue
		}
		for _, flag := range []string{"StopFile", "PauseFile"} {
			s := newService(t)
			dir := filepath.Join(s.Dir(), "flags")
			if err := c.hide(dir); err != nil {
				t.Fatal(err)
			}
			if file := filepath.Join(dir, "flag"); flag == "StopFile" {
				s.StopFile = file
			} else {
				s.PauseFile = file
			}
			s.Logger = slog.New(slog.DiscardHandler)
			l, err := s.Begin(t.Context())
			if c.want == fs.ErrNotExist || c.want == syscall.ENOTDIR {
				if err != nil {
					t.Errorf("%s, %s: %v", flag, c.name, err)
					continue
				}
				l.Close()
			} else if !errors.Is(err, c.want) || s.PID() != 0 {
				t.Errorf("%s, %s: %v, pid %d", flag, c.name, err, s.PID())
			}
		}
	}
}

// A Manager stays paused while its flag cannot be examined, and obeys the flag
// again afterwards.
func TestAttachUnreadableFlag(t *testing.T) {
	s := newService(t)
	parent := filepath.Join(s.Dir(), "parent")
	os.Mkdir(parent, 0o755)
	s, err := service.New("test", parent)
	if err != nil {
		t.Fatal(err)
	}
	s.Pause()
	p := start(t, s, "manager")
	p.ExpectN(2, `^event: slot \d paused$`)
	aside := parent + ".aside"
	if err := errors.Join(os.Rename(parent, aside), os.Symlink("parent", parent)); err != nil {
		t.Fatal(err)
	}
	p.Expect(`flag cannot be examined, keeping its last known state.* set=true`)
	os.Remove(filepath.Join(aside, "test.paused"))
	os.Remove(parent)
	if err := os.Rename(aside, parent); err != nil {
		t.Fatal(err)
	}
	p.Expect(`^event: resume$`)
	resumed := 0
	for _, line := range p.Lines() {
		if line == "event: resume" {
			resumed++
		}
	}
	if resumed != 1 {
		t.Errorf("resumed %d times", resumed)
	}
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
}
