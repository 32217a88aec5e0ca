package preforktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// NoLeaks notes which goroutines, descriptors and children the test process has, and fails the test by t.Errorf if it has
// others when the test ends; they are given 10 seconds to go. It is called before what it is to observe, since
// cleanups run in reverse order, and not in a test that runs in parallel, which would see the doings of others.
// A descriptor that the garbage collector would have closed some time later counts as left.
//
// Goroutines of os/signal do not count. Children, live or zombies, are compared on Linux; descriptors on Unix systems.
func NoLeaks(t testing.TB) {
	t.Helper()
	noLeaks(t, leakWait)
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

// TempDir returns a new directory for files that the programs of a test must not leave behind: sockets, pid files,
// temporary files. When the test ends, each file still in it fails the test by t.Errorf, and all is removed. Its
// path is short enough for Unix sockets, which that of t.TempDir is not always. It is called before Start, since
// cleanups run in reverse order. It fails the test if it cannot be made.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pft")
	if err != nil {
		t.Fatalf("preforktest: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && path != dir {
				t.Errorf("preforktest: left behind: %s (%v)", path, entry.Type())
			}
			return err
		})
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Errorf("preforktest: %v", err)
		}
	})
	return dir
}

// A snapshot is what the process has at one time; what a system does not tell is empty.
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

// initPoller makes the runtime open the descriptors of its poller, which it does with the first file that needs it, and
// which it keeps.
func initPoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// waitNoLeaks returns what is there that was not in s, once there is nothing or limit has passed. Nobody is told
// when a goroutine has ended, so it looks again and again. The garbage of that must not start a collection, which would
// close descriptors that were forgotten, and make it a matter of chance whether they are reported.
func (s snapshot) waitNoLeaks(limit time.Duration) (leaks []string) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	poll(limit, func() bool {
		leaks = s.leaks(takeSnapshot())
		return len(leaks) == 0
	})
	return leaks
}

// leaks returns what is in now and was not in s.
func (s snapshot) leaks(now snapshot) (leaks []string) {
	for id, stack := range now.goroutines {
		if _, ok := s.goroutines[id]; !ok {
			leaks = append(leaks, "goroutine left:\n"+stack)
		}
	}
	for fd, name := range now.descriptors {
		// A number that means another file now was closed and opened again.
		if before, ok := s.descriptors[fd]; !ok || openName(before) != openName(name) {
			leaks = append(leaks, fmt.Sprintf("descriptor left: %d %s", fd, name))
		}
	}
	for pid, c := range now.children {
		if _, ok := s.children[pid]; !ok {
			leaks = append(leaks, "child process left: "+c.String())
		}
	}
	slices.Sort(leaks)
	return leaks
}

// openName is the same before and after the file was removed.
func openName(name string) string { return strings.TrimSuffix(name, " (deleted)") }

// goroutines returns the stacks of all goroutines by their numbers, but for the one that calls, and those that os/signal
// starts with the first Notify and never ends.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf)) // it may have been cut off
	}
	stacks := make(map[string]string)
	for _, stack := range strings.Split(string(buf), "\n\n")[1:] { // the first is the caller's
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		if !strings.Contains(stack, "\nos/signal.loop(") && !strings.Contains(stack, "os/signal.signal_recv(") {
			stacks[id] = strings.TrimSpace(stack)
		}
	}
	return stacks
}
