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

// polled makes a service whose flags the system cannot tell of: one of them is in a directory that is not there yet.
func polled(t testing.TB) *service.Service {
	t.Helper()
	s := newService(t)
	s.PauseFile = filepath.Join(s.Dir(), "later", "paused")
	return s
}

// latencies is how long it takes, n times, from the moment at which the paused flag is removed until the loop turns. The
// flag's directory is made after the loop has begun.
func latencies(t testing.TB, s *service.Service, n int) (all []time.Duration) {
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
		obeyed := make(chan time.Time)
		go func() {
			l.Next()
			obeyed <- time.Now()
		}()
		time.Sleep(5*time.Millisecond + time.Duration(i)*37*time.Millisecond%pollTime) // at all moments between two polls
		from := time.Now()
		s.Resume()
		all = append(all, (<-obeyed).Sub(from))
	}
	slices.Sort(all)
	return all
}

// pollTime is how often flags are polled.
const pollTime = 200 * time.Millisecond

// From a flag's touch to the loop's having obeyed, beside polling.
func TestFlagLatency(t *testing.T) {
	n := 10
	if *long {
		n = 100
	}
	told, polls := latencies(t, newService(t), n), latencies(t, polled(t), n)
	t.Logf("median of %d: told %v (most %v), polled %v (most %v)", n, told[n/2], told[n-1], polls[n/2], polls[n-1])
	if told[n/2]*10 > polls[n/2] {
		t.Errorf("the system tells in %v, and polling in %v", told[n/2], polls[n/2])
	}
}

// Nothing wakes a service while nothing changes, be it paused, in its callback, or a Manager's.
func TestIdleService(t *testing.T) {
	if _, err := preforktest.ContextSwitches(os.Getpid()); err != nil {
		t.Skipf("context switches cannot be counted here: %v", err)
	}
	services := []*service.Service{newService(t), newService(t), newService(t)}
	services[1].Pause()
	var pids []int
	for i, s := range services {
		p := start(t, s, []string{"loop", "loop", "managed"}[i])
		preforktest.WaitFor(t, "a pid file", func() bool { return s.PID() == p.PID() })
		pids = append(pids, p.PID())
	}
	switches := func(pid int) int64 {
		n, err := preforktest.ContextSwitches(pid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	time.Sleep(500 * time.Millisecond) // let the start die down; from here on nothing may happen
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
		t.Logf("%v in %v", d, limit)
		if d > 3 { // polling would be ten
			t.Errorf("process %d switched %d times in %v", pid, d, limit)
		}
	}
	for _, s := range services {
		s.Stop()
		preforktest.WaitFor(t, "its end", func() bool { return s.PID() == 0 })
	}
}

// A flag that a stranger sets in a directory for all does not count, nor do links.
func TestFlagsOfStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("run as root")
	}
	s := newService(t)
	open(t, s.Dir())
	s, err := service.New("test", s.Dir()) // it is open now
	if err != nil {
		t.Fatal(err)
	}
	id, _ := strconv.Atoi(nobody)
	os.WriteFile(s.StopFile, nil, 0o644)
	os.Chown(s.StopFile, id, id)
	if s.Stopped() {
		t.Error("a stranger's flag counts")
	}
	if err := s.Stop(); err == nil {
		t.Error("a flag that does not count was set")
	}
	os.Remove(s.StopFile)

	// The directory that counts is the flag's, wherever that is.
	elsewhere := newService(t)
	elsewhere.StopFile = filepath.Join(s.Dir(), "elsewhere")
	os.WriteFile(elsewhere.StopFile, nil, 0o644)
	if !elsewhere.Stopped() {
		t.Error("a flag of one's own does not count")
	}
	os.Chown(elsewhere.StopFile, id, id)
	if elsewhere.Stopped() {
		t.Error("a stranger's flag in another directory counts")
	}

	victim := filepath.Join(t.TempDir(), "victim")
	for _, file := range []string{s.StopFile, s.PauseFile, s.PIDFile} {
		os.Symlink(victim, file)
	}
	s.Stop()
	s.Pause()
	s.Start()
	if _, err := s.Begin(t.Context()); err == nil {
		t.Error("a pid file that is a link was taken")
	} else {
		t.Log(err)
	}
	if exists(t, victim) {
		t.Error("a link was followed")
	}
	os.Remove(s.PIDFile)
	os.WriteFile(victim, []byte("precious\n"), 0o644)
	os.Remove(s.PauseFile)
	os.Link(victim, s.PauseFile)
	if s.Paused() {
		t.Error("a file of one's own that anybody may have linked there counts as a flag")
	}
	os.Link(victim, s.PIDFile)
	s.ClearFlags()
	if _, err := s.Begin(t.Context()); err == nil {
		t.Error("a pid file with two names was taken")
	} else {
		t.Log(err)
	}
	if content, _ := os.ReadFile(victim); string(content) != "precious\n" {
		t.Errorf("the other file has %q", content)
	}
}

// Where one of several directories is removed and made anew, its flag is polled.
func TestDirectoryMadeAnew(t *testing.T) {
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
	time.Sleep(pollTime) // what the system tells of the directory's end is over
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the end", func() bool { return l.Context().Err() != nil })
}
