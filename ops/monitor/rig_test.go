//go:build unix

package monitor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// A rig is a Monitor of this process, whose directory is what the test says. Its
// services write lines, which are the clock of the test.
type rig struct {
	t       testing.TB
	m       *Monitor
	dir     string
	out     *os.File // of the services
	lines   chan string
	changes chan []scan.Change
	applied chan struct{} // a change
	scanned chan struct{} // closed when the services are there
	done    chan error
	stop    context.CancelFunc
	log     *logBuffer
	hang    *hang // of the disk; nil for none

	mu      sync.Mutex
	events  []Event
	closing sync.Once
}

// A logBuffer is the log of the Monitor.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig makes a Monitor. It runs from start on.
func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), lines: make(chan string, 1<<16), changes: make(chan []scan.Change), applied: make(chan struct{}), scanned: make(chan struct{}), done: make(chan error, 1), log: new(logBuffer)}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = out
	t.Cleanup(func() {
		out.Close()
		in.Close()
	})
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			r.lines <- lines.Text()
		}
	}()
	cfg.Dir, cfg.Logger = r.dir, slog.New(slog.NewTextHandler(r.log, nil))
	if cfg.Output == nil {
		cfg.Output = func(_ string, sp *prefork.Spawn) (func(int), func(prefork.Exit)) {
			sp.Stdout, sp.Stderr = out, out
			return nil, nil
		}
	}
	cfg.Observe = func(ev Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, ev)
	}
	if r.m, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.m.watch = r.watch
	return r
}

// watch stands in for scan.Watch.
func (r *rig) watch(ctx context.Context, _ scan.Config, _ <-chan struct{}, f func([]scan.Change)) error {
	var all []scan.Change
	entries, _ := os.ReadDir(r.dir)
	for _, e := range entries {
		all = append(all, r.added(e.Name()))
	}
	f(all)
	close(r.scanned)
	for {
		select {
		case changes := <-r.changes:
			f(changes)
			r.applied <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *rig) added(name string) scan.Change {
	kind := scan.Program
	if info, err := os.Stat(filepath.Join(r.dir, name)); err == nil && info.IsDir() {
		kind = scan.Service
	}
	return scan.Change{Op: scan.Added, Entry: scan.Entry{Name: name, Kind: kind}}
}

// start runs the Monitor until the end of the test.
func (r *rig) start() *rig {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.m.Run(ctx) }()
	r.t.Cleanup(r.close)
	<-r.scanned
	if r.hang == nil {
		r.opened()
	}
	return r
}

// opened waits until no service is about to begin.
func (r *rig) opened() {
	r.t.Helper()
	preforktest.WaitFor(r.t, "services begin", func() bool {
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		for _, e := range r.m.entries {
			if e.opening {
				return false
			}
		}
		return true
	})
}

// close stops the Monitor and waits for its end. Only the first call counts.
func (r *rig) close() {
	r.closing.Do(func() {
		if r.hang != nil && r.t.Failed() {
			r.hang.answer()
		}
		r.stop()
		select {
		case err := <-r.done:
			if err != nil {
				r.t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			r.t.Errorf("Run does not end; services: %+v", r.m.Services())
			r.m.Kill()
			<-r.done
		}
		if r.t.Failed() {
			r.t.Logf("log:\n%s", r.log)
		}
	})
}

// file writes a file of a service. One with #! is executable.
func (r *rig) file(name, content string) {
	r.t.Helper()
	path, mode := filepath.Join(r.dir, name), os.FileMode(0o644)
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	// By rename: a process that is forked meanwhile would have the file open, and
	// its execution would fail.
	if err := os.WriteFile(path+".new", []byte(content), mode); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

// service writes files of a service, given as "name: content", to the directory.
func (r *rig) service(name string, files ...string) {
	r.t.Helper()
	for _, f := range files {
		base, content, _ := strings.Cut(f, ": ")
		if base == "run" || base == "finish" || base == "log/run" || base == "log/finish" || base == "check" || strings.HasPrefix(base, "control/") {
			content = "#!/bin/sh\n" + content + "\n"
		}
		r.file(filepath.Join(name, base), content)
	}
}

func (r *rig) change(op scan.Op, name string) {
	c := r.added(name)
	c.Op = op
	r.changes <- []scan.Change{c}
	<-r.applied
}

const waitLimit = 20 * time.Second

// line returns the next line.
func (r *rig) line() string {
	r.t.Helper()
	select {
	case line := <-r.lines:
		return line
	case <-time.After(waitLimit):
		r.t.Fatalf("no line; services: %+v\nlog:\n%s", r.m.Services(), r.log)
		return ""
	}
}

// want waits for lines, each of which matches a regular expression. It returns the
// groups of all.
func (r *rig) want(patterns ...string) (groups []string) {
	r.t.Helper()
	for _, pattern := range patterns {
		line := r.line()
		found := regexp.MustCompile("^(?:" + pattern + ")$").FindStringSubmatch(line)
		if found == nil {
			r.t.Fatalf("line %q, want %q\nlog:\n%s", line, pattern, r.log)
		}
		groups = append(groups, found[1:]...)
	}
	return groups
}

// written returns the lines that were written up to now.
func (r *rig) written() (lines []string) {
	r.t.Helper()
	const mark = "no line follows"
	if _, err := fmt.Fprintln(r.out, mark); err != nil {
		r.t.Fatal(err)
	}
	for line := r.line(); line != mark; line = r.line() {
		lines = append(lines, line)
	}
	return lines
}

// quiet fails if there is a line within a time in which nothing should happen.
func (r *rig) quiet(d time.Duration) {
	r.t.Helper()
	select {
	case line := <-r.lines:
		r.t.Fatalf("line %q, want none", line)
	case <-time.After(d):
	}
}

func (r *rig) do(name string, commands string) {
	r.t.Helper()
	for _, c := range []byte(commands) {
		if err := r.m.Do(name, c); err != nil {
			r.t.Fatal(err)
		}
	}
}

// state waits until a service is in a state as in the file stat.
func (r *rig) state(name, want string) Status {
	r.t.Helper()
	var st Status
	preforktest.WaitFor(r.t, fmt.Sprintf("%s %s", name, want), func() bool {
		st = r.status(name)
		return st.String() == want
	})
	return st
}

func (r *rig) status(name string) Status {
	entry, isLog := strings.CutSuffix(name, "/log")
	all := r.m.Services()
	i := slices.IndexFunc(all, func(s Status) bool { return s.Name == entry })
	switch {
	case i < 0:
		return Status{}
	case isLog:
		return *all[i].Log
	}
	return all[i]
}

// hasEvent reports whether there was an event.
func (r *rig) hasEvent(kind EventKind, service string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.events, func(ev Event) bool { return ev.Kind == kind && ev.Service == service })
}
