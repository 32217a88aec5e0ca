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

// supported skips the test where it cannot look into other processes.
func supported(t *testing.T) {
	if _, err := preforktest.Children(os.Getpid()); errors.Is(err, errors.ErrUnsupported) {
		preforktest.Skipf(t, "%v", err)
	}
}

// workerPIDs are the workers of the manager that there is now, once those that were told to stop have gone.
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

// descriptors are those of a process: their number and what kind each is of. Left out is what this one has open, too: what
// the test was started with and hands on without knowing of it.
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
	for _, what := range fds {
		if !slices.Contains(ours, what) || strings.HasPrefix(what, "anon_inode:") {
			kinds = append(kinds, numbers.ReplaceAllString(what, ""))
		}
	}
	slices.Sort(kinds)
	return fmt.Sprintf("%d: %s", len(kinds), strings.Join(kinds, " "))
}

// wantDescriptors waits, since what is closed for the sake of something that was just reported may take a moment.
func wantDescriptors(t *testing.T, who string, pid int, want string) {
	t.Helper()
	var got string
	defer func() {
		if got != want {
			t.Logf("%s has\n%s, want\n%s", who, got, want)
		}
	}()
	preforktest.WaitFor(t, "the descriptors of "+who, func() bool { got = descriptors(t, pid); return got == want })
}

// TestDescriptors: reloads and upgrades leave no descriptor behind and take none away, in the manager or in its workers.
// With -long it is 100 reloads and 20 upgrades.
func TestDescriptors(t *testing.T) {
	supported(t)
	reloads, upgrades := 10, 3
	if *long {
		reloads, upgrades = 100, 20
	}
	s := startServer(t, modes, "-warm-up", "0")
	s.rollAndWait() // a worker of the first generation may have less: nobody was replaced yet
	worker, manager := descriptors(t, s.workerPIDs()[0]), descriptors(t, s.manager)
	t.Logf("manager: %s", manager)
	t.Logf("worker:  %s", worker)
	same := func(when string) {
		t.Helper()
		for _, pid := range s.workerPIDs() {
			wantDescriptors(t, "a worker "+when, pid, worker)
		}
		wantDescriptors(t, "the manager "+when, s.manager, manager)
	}
	for range reloads {
		s.rollAndWait()
	}
	same(fmt.Sprintf("after %d reloads", reloads))
	for range upgrades {
		s.upgrade()
	}
	s.rollAndWait()
	same(fmt.Sprintf("after %d upgrades", upgrades))
	s.end()
}

// TestMemory: a thousand reloads leave no memory behind. It runs with -long.
func TestMemory(t *testing.T) {
	supported(t)
	if !*long {
		preforktest.Skipf(t, "a thousand reloads: with -long")
	}
	t.Setenv("GOGC", "20") // so that garbage does not hide what is kept: a heap that small is swept long before the end
	s := startServer(t, modes, "-warm-up", "0")
	var managers []int64
	sample := func(reloads int) {
		pids := append([]int{s.manager}, s.workerPIDs()...)
		line := fmt.Sprintf("%4d reloads:", reloads)
		for i, pid := range pids {
			private, err := preforktest.PrivateMemory(pid)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				managers = append(managers, private)
			}
			line += fmt.Sprintf(" %s %d KiB private, %d KiB resident;", map[bool]string{true: "manager", false: "worker"}[i == 0], private>>10, resident(t, pid)>>10)
		}
		t.Log(strings.TrimSuffix(line, ";"))
	}
	sample(0)
	for i := range 1000 {
		s.rollAndWait()
		if (i+1)%100 == 0 {
			sample(i + 1)
		}
	}
	// In the first hundreds the heap finds its size.
	if early, late := slices.Max(managers[1:4]), slices.Max(managers[7:]); late > early+early/4 {
		t.Errorf("the manager has grown from %d to %d KiB", early>>10, late>>10)
	}
	s.end()
}

// TestIdleWorkers prints what workers cost that do nothing. With -long they are 300.
func TestIdleWorkers(t *testing.T) {
	supported(t)
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
	t.Logf("%d idle workers: %d threads, %d MiB of their own", n, threads, private>>20)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}

// resident is the memory of a process that is in use, shared pages included.
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
