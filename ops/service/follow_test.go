//go:build unix

package service_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// replaceDir makes the path of a service's directory lead to another directory.
type replaceDir struct {
	name    string
	dir     string // of the service, below top
	replace func(top string) error
	old     string // the directory before, below top; "" if it is gone
}

var replaceDirs = []replaceDir{
	{"link switched", "current/run", func(top string) error {
		if err := os.Symlink("two", filepath.Join(top, "next")); err != nil {
			return err
		}
		return os.Rename(filepath.Join(top, "next"), filepath.Join(top, "current"))
	}, "one/run"},
	{"parent renamed", "one/run", func(top string) error {
		return errors.Join(os.Rename(filepath.Join(top, "one"), filepath.Join(top, "old")),
			os.Rename(filepath.Join(top, "two"), filepath.Join(top, "one")))
	}, "old/run"},
	{"directory renamed", "one/run", func(top string) error {
		return errors.Join(os.Rename(filepath.Join(top, "one/run"), filepath.Join(top, "one/old")),
			os.Mkdir(filepath.Join(top, "one/run"), 0o755))
	}, "one/old"},
	{"directory removed", "one/run", func(top string) error {
		dir := filepath.Join(top, "one/run")
		for os.RemoveAll(dir) != nil { // the service creates its file again at once
		}
		return os.Mkdir(dir, 0o755)
	}, ""},
}

// newReplaceable returns a service whose directory can be replaced.
func newReplaceable(t *testing.T, c replaceDir) (s *service.Service, top string) {
	t.Helper()
	top = t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(top, "one/run"), 0o755),
		os.MkdirAll(filepath.Join(top, "two/run"), 0o755), os.Symlink("one", filepath.Join(top, "current")))
	if err == nil {
		s, err = service.New("test", filepath.Join(top, c.dir))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, top
}

// If the path of the directory leads elsewhere, the service has its pid file and
// obeys its flags there within a second, and notifications work again.
func TestDirectoryFollowed(t *testing.T) {
	for _, c := range replaceDirs {
		t.Run(c.name, func(t *testing.T) {
			s, top := newReplaceable(t, c)
			log := withLog(s)
			l, err := s.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := c.replace(top); err != nil {
				t.Fatal(err)
			}
			from := time.Now()
			preforktest.WaitFor(t, "the pid file", func() bool { return s.PID() == os.Getpid() })
			t.Logf("pid file after %v", time.Since(from))
			checkRunning(t, s, os.Getpid())
			if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) {
				t.Errorf("second start: %v", err)
			}
			if n := log.count("service directory replaced"); n > 1 {
				t.Errorf("logged %d times", n)
			}
			if c.old != "" && exists(t, filepath.Join(top, c.old, "test.pid")) {
				t.Error("a pid file is left in the old directory")
			}
			s.Stop()
			from = time.Now()
			<-l.Context().Done()
			t.Logf("flag obeyed after %v", time.Since(from))
		})
	}
}

// The same for a directory that has only one of the flags.
func TestFlagDirectoryFollowed(t *testing.T) {
	s := newService(t)
	dir := filepath.Join(s.Dir(), "flags")
	s.StopFile = filepath.Join(dir, "stopped")
	log := withLog(s)
	os.Mkdir(dir, 0o700)
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Remove(dir)
	preforktest.WaitFor(t, "the loss of the directory", func() bool { return log.count("no file notifications") == 1 })
	os.Mkdir(dir, 0o700)
	preforktest.WaitFor(t, "the new directory", func() bool { return log.count("service directory replaced") == 1 })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	<-l.Context().Done()
}

// The same with a Manager, whose next successor inherits the new pid file.
func TestAttachDirectoryFollowed(t *testing.T) {
	s, top := newReplaceable(t, replaceDirs[0])
	p := start(t, s, "manager")
	p.ExpectN(2, ` works$`)
	if err := replaceDirs[0].replace(top); err != nil {
		t.Fatal(err)
	}
	p.Expect(`pid file removed, created again`)
	checkRunning(t, s, p.PID())
	again := start(t, s, "manager")
	again.Expect(`^error: service test: already running as process `)
	again.Wait()
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	preforktest.WaitFor(t, "the successor's pid", func() bool { return s.PID() != 0 && s.PID() != p.PID() })
	checkRunning(t, s, s.PID())
	s.Stop()
	p.Expect(`^manager \d+ ended <nil>, <nil>$`)
	p.WaitGone()
	if exists(t, s.PIDFile) || exists(t, filepath.Join(top, "one/run/test.pid")) {
		t.Error("a pid file still exists")
	}
}

// A pid file that was overwritten is written again, with a line in the log each
// time.
func TestPIDFileOverwritten(t *testing.T) {
	s := newService(t)
	log := withLog(s)
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := os.OpenFile(s.PIDFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(content string) error {
		_, err := f.WriteAt([]byte(content), 0)
		return err
	}
	for i, overwrite := range []func() error{
		func() error { return write("1\n") },
		func() error { return f.Truncate(0) },
		func() error { return write("no pid at all, and longer than a pid can be\n") },
	} {
		if err := overwrite(); err != nil {
			t.Fatal(err)
		}
		preforktest.WaitFor(t, "the pid", func() bool { return s.PID() == os.Getpid() })
		preforktest.WaitFor(t, "the log", func() bool { return log.count("pid file overwritten") == i+1 })
		checkRunning(t, s, os.Getpid())
	}
	if n := log.count("pid file removed"); n > 0 {
		t.Errorf("removed %d times", n)
	}
}
