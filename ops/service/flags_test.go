//go:build unix

package service_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// newPolledService returns a service without file notifications: the directory
// of one flag does not exist yet.
func newPolledService(t testing.TB) *service.Service {
	t.Helper()
	s := newService(t)
	s.PauseFile = filepath.Join(s.Dir(), "later", "paused")
	return s
}

// resumeLatencies measures n times how long a loop takes to continue after the
// paused flag was cleared. It returns the times in ascending order. The flag's
// directory is created after Begin.
func resumeLatencies(t testing.TB, s *service.Service, n int) (all []time.Duration) {
	t.Helper()
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Mkdir(filepath.Dir(s.PauseFile), 0o700)
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
	n := 10
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

// An idle service does not wake up, whether it runs work, is paused, or is
// attached to a Manager.
func TestIdleService(t *testing.T) {
	if _, err := preforktest.ContextSwitches(os.Getpid()); err != nil {
		preforktest.Skipf(t, "context switches cannot be counted: %v", err)
	}
	services := []*service.Service{newService(t), newService(t), newService(t)}
	services[1].Pause()
	var pids []int
	for i, s := range services {
		p := start(t, s, []string{"loop", "loop", "manager"}[i])
		preforktest.WaitFor(t, "the pid file", func() bool { return s.PID() == p.PID() })
		pids = append(pids, p.PID())
	}
	switches := func(pid int) int64 {
		n, err := preforktest.ContextSwitches(pid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	time.Sleep(500 * time.Millisecond) // for the start to settle
	limit := 2 * time.Second
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
		if d > 3 { // polling causes ten
			t.Errorf("process %d: %d context switches in %v", pid, d, limit)
		}
	}
	for _, s := range services {
		s.Stop()
		preforktest.WaitFor(t, "the end of the service", func() bool { return s.PID() == 0 })
	}
}

// Flags that other users set in a world-writable directory are ignored, and
// links are not followed.
func TestFlagsOfOtherUsers(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	s, err := service.New("test", s.Dir()) // with the new mode
	if err != nil {
		t.Fatal(err)
	}
	id, _ := strconv.Atoi(otherUID)
	os.WriteFile(s.StopFile, nil, 0o644)
	os.Chown(s.StopFile, id, id)
	if s.Stopped() {
		t.Error("another user's flag is honored")
	}
	if err := s.Stop(); err == nil {
		t.Error("Stop reports success for an ignored flag")
	}
	os.Remove(s.StopFile)

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

// If one of several directories is removed and created again, its flag is
// polled.
func TestDirectoryReplaced(t *testing.T) {
	s := newService(t)
	dir := filepath.Join(s.Dir(), "flags")
	s.StopFile = filepath.Join(dir, "stopped")
	os.Mkdir(dir, 0o700)
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Remove(dir)
	os.Mkdir(dir, 0o700)
	time.Sleep(pollInterval) // the notifications of the removal have passed
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the end of the loop", func() bool { return l.Context().Err() != nil })
}
