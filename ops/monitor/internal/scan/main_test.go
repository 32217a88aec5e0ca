//go:build unix

package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// slowSettle is the time to settle in tests with real system calls: a machine
// under load must not spread one save over more.
const slowSettle = time.Second

// A watch is a running Watch whose reports are the clock of a test.
type watch struct {
	t       *testing.T
	dir     string
	changes chan []Change
	errs    chan error
	rescan  chan struct{}
	markers int
}

// startWatch watches a directory, and returns the changes of the first call.
func startWatch(t *testing.T, w *watcher) (*watch, []Change) {
	t.Helper()
	s := &watch{t: t, dir: w.cfg.Dir, changes: make(chan []Change, 1000), errs: make(chan error, 1000), rescan: make(chan struct{})}
	w.cfg.Report = func(err error) { s.errs <- err }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.run(ctx, s.rescan, func(c []Change) { s.changes <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
		w.close()
		for len(s.errs) > 0 {
			t.Errorf("it reported: %v", <-s.errs)
		}
	})
	return s, s.next()
}

func (s *watch) next() []Change {
	s.t.Helper()
	select {
	case c := <-s.changes:
		return c
	case <-time.After(30 * time.Second):
		s.t.Fatal("no change was reported")
	}
	return nil
}

// report waits for an error that Watch has survived.
func (s *watch) report(contains string) {
	s.t.Helper()
	select {
	case err := <-s.errs:
		if !strings.Contains(err.Error(), contains) {
			s.t.Fatalf("it reported %q, want %q", err, contains)
		}
	case <-time.After(30 * time.Second):
		s.t.Fatalf("it did not report %q", contains)
	}
}

// sinceThen returns all changes up to now, sorted by name.
func (s *watch) sinceThen() (changes []string) {
	s.t.Helper()
	s.mark()
	return s.sinceMark()
}

// mark creates a program. Its change comes last: the system notifies in order.
func (s *watch) mark() {
	s.t.Helper()
	s.markers++
	writeFile(s.t, filepath.Join(s.dir, s.marker()), 0o755, "")
}

func (s *watch) marker() string { return fmt.Sprintf("zz-marker-%d", s.markers) }

func (s *watch) sinceMark() (changes []string) {
	s.t.Helper()
	for {
		for _, c := range s.next() {
			if c.Entry.Name == s.marker() {
				slices.SortStableFunc(changes, func(a, b string) int {
					return strings.Compare(nameIn(a), nameIn(b))
				})
				return changes
			}
			changes = append(changes, text(c))
		}
	}
}

func text(c Change) string {
	s := c.Op.String() + " " + c.Entry.Name
	if c.Reason != "" {
		s += " (" + c.Reason + ")"
	}
	return s
}

// nameIn returns the name in a text.
func nameIn(text string) string {
	text, _, _ = strings.Cut(text, " (")
	return text[strings.LastIndexByte(text, ' ')+1:]
}

func texts(changes []Change) (out []string) {
	for _, c := range changes {
		out = append(out, text(c))
	}
	return out
}

func (s *watch) expect(want ...string) {
	s.t.Helper()
	if got := s.sinceThen(); !slices.Equal(got, want) {
		s.t.Errorf("changes: %q, want %q", got, want)
	}
}

// await expects the next change, however late.
func (s *watch) await(want ...string) {
	s.t.Helper()
	if got := texts(s.next()); !slices.Equal(got, want) {
		s.t.Fatalf("changes: %q, want %q", got, want)
	}
}

func writeFile(t *testing.T, path string, mode os.FileMode, content string) {
	t.Helper()
	err := os.WriteFile(path, []byte(content), mode)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
