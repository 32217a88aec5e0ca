//go:build unix

package service_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// newPolledService returns a service without file notifications: the directory
// of one flag does not exist.
func newPolledService(t testing.TB) *service.Service {
	t.Helper()
	s := newService(t)
	s.StopFile = filepath.Join(s.Dir(), "none", "stopped")
	return s
}

// resumeLatencies measures n times how long a loop takes to continue after the
// paused flag was cleared. It returns the times in ascending order.
func resumeLatencies(t testing.TB, s *service.Service, n int) (all []time.Duration) {
	t.Helper()
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range n {
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		continued := make(chan time.Time)
		go func() {
			l.Next()
			continued <- time.Now()
		}()
		// Spread the times over the polling interval.
		time.Sleep(5*time.Millisecond + time.Duration(i)*37*time.Millisecond%pollInterval)
		from := time.Now()
		s.Resume()
		all = append(all, (<-continued).Sub(from))
	}
	slices.Sort(all)
	return all
}

// pollInterval is the documented polling interval.
const pollInterval = 200 * time.Millisecond

// With file notifications a loop continues at least ten times sooner than with
// polling.
func TestFlagLatency(t *testing.T) {
	n := 5
	if *long {
		n = 100
	}
	notified, polled := resumeLatencies(t, newService(t), n), resumeLatencies(t, newPolledService(t), n)
	t.Logf("median of %d: notified %v (max %v), polled %v (max %v)",
		n, notified[n/2], notified[n-1], polled[n/2], polled[n-1])
	if notified[n/2]*10 > polled[n/2] {
		t.Errorf("median latency: notified %v, polled %v", notified[n/2], polled[n/2])
	}
	if polled[n/2] > 3*pollInterval {
		t.Errorf("median latency: polled %v at an interval of %v", polled[n/2], pollInterval)
	}
}

// An idle service wakes up only to check its files twice a second, whether it
// runs work, is paused, or is attached to a Manager.
func TestIdleService(t *testing.T) {
	if _, err := preforktest.ContextSwitches(os.Getpid()); err != nil {
		preforktest.Skipf(t, "context switches cannot be counted: %v", err)
	}
	services := []*service.Service{newService(t), newService(t), newService(t)}
	services[1].Pause()
	var pids []int
	for i, s := range services {
		p := start(t, s, []string{"loop", "loop", "manager"}[i])
		p.Expect([]string{`^running `, ` INFO paused `, ` works$`}[i])
		pids = append(pids, p.PID())
	}
	switches := func(pid int) int64 {
		n, err := preforktest.ContextSwitches(pid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	limit := time.Second // an observation: nothing must happen in it
	if *long {
		limit = 10 * time.Second
	}
	var before []int64
	for _, pid := range pids {
		before = append(before, switches(pid))
	}
	time.Sleep(limit)
	for i, pid := range pids {
		d := switches(pid) - before[i]
		t.Logf("%d context switches in %v", d, limit)
		// Each check causes a few in each of two or three goroutines, and a
		// busy machine some more. A loop that spins has thousands.
		if d > 100*int64(limit/time.Second) {
			t.Errorf("process %d: %d context switches in %v", pid, d, limit)
		}
	}
	for _, s := range services {
		s.Stop()
		preforktest.WaitFor(t, "the end of the service", func() bool { return s.PID() == 0 })
	}
}

// runLoop runs a loop as the service until the end of the test.
func runLoop(t *testing.T, s *service.Service) {
	t.Helper()
	l, err := s.Begin(t.Context()) // which ends before Cleanup
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for l.Next() {
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		<-ended
		l.Close()
	})
}

// A flag is noticed however the file appears, and however it disappears.
func TestFlagForms(t *testing.T) {
	s := newService(t)
	elsewhere := filepath.Join(t.TempDir(), "file")
	f := s.PauseFile
	rm := func() error { return os.Remove(f) }
	log := withLog(s)
	runLoop(t, s)
	for i, c := range []struct {
		name       string
		set, unset func() error
	}{
		{"touch, rm", s.Pause, rm},
		{"moved", func() error {
			return errors.Join(os.WriteFile(elsewhere, nil, 0o600), os.Rename(elsewhere, f))
		}, func() error { return os.Rename(f, elsewhere) }},
		{"link to nothing", func() error { return os.Symlink("nothing", f) }, rm},
		{"hard link", func() error { return os.Link(elsewhere, f) }, rm},
		{"directory", func() error { return os.Mkdir(f, 0o700) }, rm},
		{"FIFO", func() error { return syscall.Mkfifo(f, 0o600) }, rm},
		{"editor", func() error {
			return errors.Join(os.WriteFile(f+".swp", []byte("maintenance\n"), 0o600), os.Rename(f+".swp", f))
		}, rm},
		{"mode 0", func() error { return os.WriteFile(f, []byte("1\n"), 0) }, rm},
		{"Resume", s.Pause, func() error { _, err := s.Resume(); return err }},
	} {
		if err := c.set(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		preforktest.WaitFor(t, c.name+" to pause", func() bool { return log.count("msg=paused") == i+1 })
		if err := c.unset(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		preforktest.WaitFor(t, c.name+" to end", func() bool { return log.count("msg=resumed") == i+1 })
	}
}

// A flag counts, or stops to count, when its owner changes.
func TestFlagOwner(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	log := withLog(s)
	runLoop(t, s)
	other, _ := strconv.Atoi(otherUID)
	if err := errors.Join(os.WriteFile(s.PauseFile+".new", nil, 0o644), os.Chown(s.PauseFile+".new", other, other),
		os.Rename(s.PauseFile+".new", s.PauseFile)); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the log", func() bool { return log.count("flag ignored") == 1 })
	for i := range 3 {
		if n := log.count("msg=paused"); n != i {
			t.Errorf("paused %d times before the owner changes", n)
		}
		os.Chown(s.PauseFile, os.Geteuid(), -1)
		preforktest.WaitFor(t, "the pause", func() bool { return log.count("msg=paused") == i+1 })
		os.Chown(s.PauseFile, other, -1)
		preforktest.WaitFor(t, "the end of the pause", func() bool { return log.count("msg=resumed") == i+1 })
	}
	if n := log.count("flag ignored"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// Wherever others can create files, a flag must belong to root or to this user.
func TestFlagsOfOthers(t *testing.T) {
	needOtherUser(t)
	other, _ := strconv.Atoi(otherUID)
	for _, c := range []struct {
		name       string
		mode       os.FileMode
		uid, gid   int
		want, mine bool // whether a flag of the other user counts, and one of this user
	}{
		{"own", 0o755, -1, -1, true, true},
		{"sticky", 0o777 | os.ModeSticky, -1, -1, false, true},
		{"group", 0o775, -1, other, false, true},
		{"group and sticky", 0o775 | os.ModeSticky, -1, other, false, true},
		{"foreign", 0o755, other, other, false, true},
		{"foreign and sticky", 0o755 | os.ModeSticky, other, other, false, true},
	} {
		s := newService(t)
		if err := errors.Join(os.Chown(s.Dir(), c.uid, c.gid), os.Chmod(s.Dir(), c.mode)); err != nil {
			t.Fatal(err)
		}
		s.Logger = slog.New(slog.DiscardHandler)
		s, err := service.New("test", s.Dir())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := errors.Join(os.WriteFile(s.StopFile, nil, 0o644), os.Chown(s.StopFile, other, other)); err != nil {
			t.Fatal(err)
		}
		if got := s.Stopped(); got != c.want {
			t.Errorf("%s: flag of another user: %t, want %t", c.name, got, c.want)
		}
		l, err := s.Begin(t.Context())
		if c.want != errors.Is(err, service.ErrStopped) {
			t.Errorf("%s: Begin: %v", c.name, err)
		}
		if err == nil {
			l.Close()
		}
		if err := s.Stop(); c.want != (err == nil) || err != nil && !strings.Contains(err.Error(), "belongs to user "+otherUID) {
			t.Errorf("%s: Stop: %v", c.name, err)
		}
		if was, err := s.Start(); !was || err != nil {
			t.Errorf("%s: Start: %t, %v", c.name, was, err)
		}
		if err := s.Stop(); err != nil || s.Stopped() != c.mine {
			t.Errorf("%s: Stop of this user: %v", c.name, err)
		}
		s.Start()
		// Others cannot write a pid file of this user's, but may rename it.
		if err := os.WriteFile(s.StopFile, []byte("4711\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := s.Stopped(); got != c.want {
			t.Errorf("%s: renamed pid file: %t, want %t", c.name, got, c.want)
		}
		s.Start()
	}
}

// A process that looks at the service of another user sees that user's flags,
// as the service does.
func TestFlagsOfTheServicesUser(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	other, _ := strconv.Atoi(otherUID)
	if err := errors.Join(os.Chown(s.Dir(), other, other), os.Chmod(s.Dir(), 0o755),
		os.WriteFile(s.PauseFile, nil, 0o644), os.Chown(s.PauseFile, other, other)); err != nil {
		t.Fatal(err)
	}
	if s.Paused() {
		t.Error("paused before the other user runs the service")
	}
	p := start(t, s, "starter", otherUID)
	p.Expect(`msg=paused|INFO paused`)
	if !s.Paused() {
		t.Error("not paused")
	}
	if err := s.Pause(); err != nil {
		t.Errorf("Pause: %v", err)
	}
	s.Stop()
	p.Expect(`^ended$`)
	p.Wait()
}

// Flags that other users set in a world-writable directory are ignored, and
// links are not followed.
func TestFlagsOfOtherUsers(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	id, _ := strconv.Atoi(otherUID)
	// The directory of the flag counts, wherever the other files are.
	elsewhere := newService(t)
	elsewhere.StopFile = filepath.Join(s.Dir(), "elsewhere")
	os.WriteFile(elsewhere.StopFile, nil, 0o644)
	if !elsewhere.Stopped() {
		t.Error("a flag of this user is ignored")
	}
	os.Chown(elsewhere.StopFile, id, id)
	if elsewhere.Stopped() {
		t.Error("another user's flag in another directory is honored")
	}

	victim := filepath.Join(t.TempDir(), "victim")
	for _, file := range []string{s.StopFile, s.PauseFile, s.PIDFile} {
		os.Symlink(victim, file)
	}
	s.Stop()
	s.Pause()
	s.Start()
	if _, err := s.Begin(t.Context()); err == nil {
		t.Error("a symbolic link was accepted as pid file")
	} else {
		t.Log(err)
	}
	if exists(t, victim) {
		t.Error("a symbolic link was followed")
	}
	os.Remove(s.PIDFile)
	os.WriteFile(victim, []byte("precious\n"), 0o644)
	os.Remove(s.PauseFile)
	os.Link(victim, s.PauseFile)
	if s.Paused() {
		t.Error("a hard link is honored as a flag: another user may have created it")
	}
	os.Link(victim, s.PIDFile)
	s.ClearFlags()
	if _, err := s.Begin(t.Context()); err == nil {
		t.Error("a pid file with two links was accepted")
	} else {
		t.Log(err)
	}
	if content, _ := os.ReadFile(victim); string(content) != "precious\n" {
		t.Errorf("the linked file contains %q", content)
	}
}
