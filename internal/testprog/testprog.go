//go:build unix

// Package testprog helps the tests of the directories under tests and the
// programs that they start.
//
// It imports the root, so the packages that the root imports cannot use it in
// their tests. They use only package preforktest.
package testprog

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "repeat as often as CONTRIBUTING.md promises, not a tenth of it, or a fiftieth with -short")

// Long reports whether the tests were started with the flag -long. It asks for
// the counts that CONTRIBUTING.md and docs/RELIABILITY.md name.
func Long() bool { return *long }

// Times returns how often a test repeats its work: n times with -long, a tenth of
// that by default, and a fiftieth with -short, for the race detector: with it, a
// start of a process takes ten times the processor time.
func Times(n int) int {
	switch {
	case *long:
		return n
	case flag.Parsed() && testing.Short():
		return max(1, n/50)
	}
	return max(1, n/10)
}

// Race reports whether the tests were built with the race detector, which keeps a
// shadow of all memory that was ever used.
func Race() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Repeat runs test as a subtest Times(50) times.
func Repeat(t *testing.T, test func(*testing.T)) {
	t.Helper()
	for i := range Times(50) {
		t.Run(strconv.Itoa(i), test)
	}
}

// Print writes one line to standard output, which the test reads. Lines of
// several processes do not mix in a pipe if they are shorter than 4 KiB.
func Print(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

// NewManager returns a Manager, or ends the program if New fails. By default it is
// never in a crash loop: tests kill workers before they have shown that they can
// work, and on a busy machine often enough.
func NewManager(cfg prefork.Config) *prefork.Manager {
	if cfg.CrashLoop.Failures == 0 {
		cfg.CrashLoop.Failures = -1
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	return pm
}

// UntilTerm is the main loop of most programs: it calls StartFunc until
// SIGTERM arrives, then WaitAllChildren.
func UntilTerm(pm *prefork.Manager, work func(*prefork.Worker) error) {
	for pm.SignalReceived() != syscall.SIGTERM {
		pm.StartFunc(work)
	}
	pm.WaitAllChildren(context.Background())
}

// SignalManager sends sig to the manager of this worker.
func SignalManager(w *prefork.Worker, sig syscall.Signal) { syscall.Kill(w.ManagerPID(), sig) }

// Counter is a number that several processes increment: the size of the file
// of that name.
type Counter string

// Add appends a byte and returns the new count. The file is locked, so that
// every caller gets another number.
func (c Counter) Add() int {
	f, err := os.OpenFile(string(c), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		log.Fatal(err)
	}
	f.Write([]byte{'x'})
	return c.Value()
}

// Value returns the count; zero if there is no file.
func (c Counter) Value() int {
	info, err := os.Stat(string(c))
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// ExpectAll waits for the lines in any order, each as often as its value.
func ExpectAll(p *preforktest.Program, lines map[string]int) {
	for missing := len(lines); missing > 0; {
		line := p.NextLine()
		if lines[line]--; lines[line] == 0 {
			missing--
		}
	}
}

// ExpectSuccess waits for the program to end, and fails the test unless it
// exits with status 0.
func ExpectSuccess(t testing.TB, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("the program ended with %v:\n%v", state, p.Lines())
	}
}
