package preforktest

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// NoLeaks records the goroutines, descriptors and children of the test process.
// If there are others when the test ends, and they do not disappear within 10
// seconds, NoLeaks fails the test with t.Errorf. It must be called first,
// because cleanups run in reverse order. It must not be called in a parallel
// test, because it would see goroutines of other tests.
//
// Goroutines of os/signal do not count. A descriptor that the garbage collector
// would close later counts as a leak. Children, live or zombies, are compared
// on Linux; descriptors on Unix systems.
func NoLeaks(t testing.TB) {
	t.Helper()
	noLeaks(t, leakTimeout)
}

func noLeaks(t testing.TB, limit time.Duration) {
	before := takeSnapshot()
	t.Cleanup(func() {
		t.Helper()
		for _, leak := range before.waitNoLeaks(limit) {
			t.Errorf("preforktest: %s", leak)
		}
	})
}

// A snapshot holds the resources of this process at one time. A map is empty if
// the system does not provide it.
type snapshot struct {
	goroutines  map[string]string // stack by number
	descriptors map[int]string
	children    map[int]Proc
}

func takeSnapshot() snapshot {
	initPoller()
	s := snapshot{goroutines: goroutines(), children: make(map[int]Proc)}
	s.descriptors, _ = Descriptors(os.Getpid())
	children, _ := Children(os.Getpid())
	for _, c := range children {
		s.children[c.PID] = c
	}
	return s
}

// initPoller makes the runtime open the descriptors of its poller. The runtime
// opens them with the first file that needs them, and keeps them.
func initPoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// waitNoLeaks returns the resources that are not in s, once there are none or
// limit has passed. It polls, because the exit of a goroutine sends no
// notification. It turns the collector off: the garbage of polling could start a
// collection, which would close forgotten descriptors and make the result
// random.
func (s snapshot) waitNoLeaks(limit time.Duration) (leaks []string) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	poll(limit, func() bool {
		leaks = s.leaks(takeSnapshot())
		return len(leaks) == 0
	})
	return leaks
}

// leaks returns the resources in now that are not in s.
func (s snapshot) leaks(now snapshot) (leaks []string) {
	for id, stack := range now.goroutines {
		if _, ok := s.goroutines[id]; !ok {
			leaks = append(leaks, "leaked goroutine:\n"+stack)
		}
	}
	for fd, name := range now.descriptors {
		// A number that refers to another file was closed and opened again.
		if before, ok := s.descriptors[fd]; !ok || trimDeleted(before) != trimDeleted(name) {
			leaks = append(leaks, fmt.Sprintf("leaked descriptor: %d %s", fd, name))
		}
	}
	for pid, c := range now.children {
		if _, ok := s.children[pid]; !ok {
			leaks = append(leaks, "leftover child process: "+c.String())
		}
	}
	slices.Sort(leaks)
	return leaks
}

// trimDeleted makes the name the same before and after the file is removed.
func trimDeleted(name string) string { return strings.TrimSuffix(name, " (deleted)") }

// goroutines returns the stacks of all goroutines by number, except the calling
// one and those of os/signal, which start with the first Notify and never exit.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf)) // the stacks may be truncated
	}
	stacks := make(map[string]string)
	for _, stack := range strings.Split(string(buf), "\n\n")[1:] { // the first is the caller's
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		if !strings.Contains(stack, "\nos/signal.loop(") &&
			!strings.Contains(stack, "os/signal.signal_recv(") {
			stacks[id] = strings.TrimSpace(stack)
		}
	}
	return stacks
}
