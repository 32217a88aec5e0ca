//go:build unix

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// needProc skips the test if the system has no /proc to examine other
// processes.
func needProc(t *testing.T) {
	if _, err := preforktest.Children(os.Getpid()); errors.Is(err, errors.ErrUnsupported) {
		preforktest.Skipf(t, "%v", err)
	}
}

// workerPIDs waits until the stopping workers have exited, and returns the pids
// of the current manager's workers.
func (s *server) workerPIDs() (pids []int) {
	s.t.Helper()
	preforktest.WaitFor(s.t, fmt.Sprintf("%d workers and no more", number), func() bool {
		children, err := preforktest.Children(s.manager)
		if err != nil {
			s.t.Fatal(err)
		}
		pids = nil
		for _, c := range children {
			pids = append(pids, c.PID)
		}
		return len(pids) == number
	})
	return pids
}

var numbers = regexp.MustCompile(`\[\d+\]`)

// descriptors returns the number of descriptors of a process and the kind of
// each. It omits descriptors that the test has open too, because the test may
// have inherited them and passes them on.
func descriptors(t *testing.T, pid int) string {
	t.Helper()
	own, err := preforktest.Descriptors(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	fds, err := preforktest.Descriptors(pid)
	if err != nil {
		t.Fatal(err)
	}
	ours := slices.Collect(maps.Values(own))
	var kinds []string
	for _, name := range fds {
		if !slices.Contains(ours, name) || strings.HasPrefix(name, "anon_inode:") {
			kinds = append(kinds, numbers.ReplaceAllString(name, ""))
		}
	}
	slices.Sort(kinds)
	return fmt.Sprintf("%d: %s", len(kinds), strings.Join(kinds, " "))
}

// awaitDescriptors waits until the process has the descriptors, because a
// process may report an event shortly before it closes descriptors.
func awaitDescriptors(t *testing.T, name string, pid int, want string) {
	t.Helper()
	var got string
	defer func() {
		if got != want {
			t.Logf("%s has\n%s, want\n%s", name, got, want)
		}
	}()
	preforktest.WaitFor(t, "the descriptors of "+name, func() bool {
		got = descriptors(t, pid)
		return got == want
	})
}

// Reloads and upgrades neither leak nor close descriptors of the manager and
// its workers. With -long there are 100 reloads and 20 upgrades.
func TestDescriptors(t *testing.T) {
	needProc(t)
	reloads, upgrades := 10, 3
	if *long {
		reloads, upgrades = 100, 20
	}
	s := startServer(t, modes, "-warm-up", "0")
	s.rollAndWait() // a worker of the first generation may have fewer descriptors
	var worker string
	// Until then one of them can also have the sockets of a worker that stops.
	preforktest.WaitFor(t, "the workers have the same descriptors", func() bool {
		pids := s.workerPIDs()
		worker = descriptors(t, pids[0])
		return !slices.ContainsFunc(pids[1:], func(pid int) bool { return descriptors(t, pid) != worker })
	})
	manager := descriptors(t, s.manager)
	t.Logf("manager: %s", manager)
	t.Logf("worker:  %s", worker)
	check := func(when string) {
		t.Helper()
		for _, pid := range s.workerPIDs() {
			awaitDescriptors(t, "a worker "+when, pid, worker)
		}
		awaitDescriptors(t, "the manager "+when, s.manager, manager)
	}
	for range reloads {
		s.rollAndWait()
	}
	check(fmt.Sprintf("after %d reloads", reloads))
	for range upgrades {
		s.upgrade()
	}
	s.rollAndWait()
	check(fmt.Sprintf("after %d upgrades", upgrades))
	s.shutdown()
}

// A thousand reloads leak no memory in the manager. The test needs -long.
func TestMemory(t *testing.T) {
	needProc(t)
	if !*long {
		preforktest.Skipf(t, "needs -long for a thousand reloads")
	}
	// Garbage should not hide a leak. A small heap is collected many times
	// during the test.
	t.Setenv("GOGC", "20")
	s := startServer(t, modes, "-warm-up", "0")
	var managers []int64
	sample := func(reloads int) {
		private, line := memory(t, s.manager)
		managers = append(managers, private)
		line = fmt.Sprintf("%4d reloads: manager %s", reloads, line)
		for _, pid := range s.workerPIDs() {
			_, worker := memory(t, pid)
			line += "; worker " + worker
		}
		t.Log(line)
	}
	sample(0)
	for i := range 1000 {
		s.rollAndWait()
		if (i+1)%100 == 0 {
			sample(i + 1)
		}
	}
	// The heap grows to its size in the first hundreds of reloads.
	if early, late := slices.Max(managers[1:4]), slices.Max(managers[7:]); late > early+early/4 {
		t.Errorf("the manager grew from %d to %d KiB", early>>10, late>>10)
	}
	s.shutdown()
}

// memory returns the private memory of a process, and its private and resident
// memory in words.
func memory(t *testing.T, pid int) (private int64, text string) {
	t.Helper()
	private, err := preforktest.PrivateMemory(pid)
	if err != nil {
		t.Fatal(err)
	}
	return private, fmt.Sprintf("%d KiB private, %d KiB resident", private>>10, resident(t, pid)>>10)
}

// TestIdleWorkers logs the threads and the memory of idle workers. With -long
// there are 300 workers.
func TestIdleWorkers(t *testing.T) {
	needProc(t)
	n := 10
	if *long {
		n = 300
	}
	p := preforktest.Start(t, "modes", "-number", strconv.Itoa(n), "-modes", modes[0].String())
	p.ExpectN(n, `worker ready`)
	children, err := preforktest.Children(p.PID())
	if err != nil || len(children) != n {
		t.Fatalf("%d workers, %v", len(children), err)
	}
	var threads int
	var private int64
	for _, c := range children {
		more, err1 := preforktest.Threads(c.PID)
		bytes, err2 := preforktest.PrivateMemory(c.PID)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		threads, private = threads+more, private+bytes
	}
	t.Logf("%d idle workers: %d threads, %d MiB of private memory", n, threads, private>>20)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// resident returns the memory of a process in use, including shared pages.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int64
	if err == nil {
		_, err = fmt.Sscan(string(data), &size, &pages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
