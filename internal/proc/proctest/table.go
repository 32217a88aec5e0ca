// Package proctest provides a process table without processes, for tests. A
// test makes the pretended processes send data and exit.
package proctest

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/proc"
)

// Install makes each Manager created until the end of the test run on pretended
// processes. It calls configure, unless nil, with the Table of each Manager
// before the Manager uses it. Tests that call Install must not run in parallel
// with each other or with tests that create a Manager.
//
// A test in a synctest bubble should call Install before it enters the bubble.
// Its Manager should trap no signals (an empty Config.TrapSignals), since the
// goroutines that receive them would keep the bubble from ending.
func Install(t testing.TB, configure func(*Table)) {
	t.Helper()
	// The first Notify of a program starts a goroutine that never returns. It
	// must not start in a bubble.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	previous := proc.NewTable
	proc.NewTable = func(notify func(proc.Note)) proc.Table {
		table := NewTable(notify)
		if configure != nil {
			configure(table)
		}
		return table
	}
	t.Cleanup(func() { proc.NewTable = previous })
}

// A Table implements proc.Table by processes that do not exist. It keeps the
// contract of proc.Table and proc.Process. Its methods are safe for concurrent
// use. It starts no goroutine: it calls notify in the goroutine that causes the
// change.
//
// The three functions may be nil. The Table calls them with no lock held,
// before Start, Signal or SignalGroup returns. They must be set before the
// Table is used.
type Table struct {
	// OnStart is called for each process started.
	OnStart func(*Process)

	// OnSignal is called for each signal to a process that has not exited.
	// After it returns, SIGKILL ends the process.
	OnSignal func(*Process, syscall.Signal)

	// OnGroupSignal is called for each signal to a group that has members
	// besides its leader. After it returns, SIGKILL ends the group.
	OnGroupSignal func(*Process, syscall.Signal)

	notify func(proc.Note)

	mu       sync.Mutex // guards the fields below and the unexported fields of all processes
	closed   bool
	failures []error
	procs    []*Process
}

// NewTable returns a Table that calls notify for each change in its processes.
func NewTable(notify func(proc.Note)) *Table { return &Table{notify: notify} }

// Name implements proc.Table.
func (t *Table) Name() string { return "proctest" }

// FailNext makes the next n calls of Start return err.
func (t *Table) FailNext(n int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, slices.Repeat([]error{err}, n)...)
}

// Started returns all processes started until now, including those that have
// exited, in the order of their starts.
func (t *Table) Started() []*Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.procs)
}

// Start implements proc.Table.
func (t *Table) Start(id uint64, spec proc.Spec) (proc.Process, error) {
	p, err := t.start(id, spec)
	if err != nil {
		return nil, err
	}
	if t.OnStart != nil {
		t.OnStart(p)
	}
	return p, nil
}

func (t *Table) start(id uint64, spec proc.Spec) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("start in a closed table: %w", os.ErrClosed)
	}
	if len(t.failures) > 0 {
		err := t.failures[0]
		t.failures = t.failures[1:]
		return nil, err
	}
	p := &Process{ID: id, Spec: spec, table: t, armed: true, disconnected: spec.Control == 0}
	t.procs = append(t.procs, p)
	return p, nil
}

// Close implements proc.Table.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}
