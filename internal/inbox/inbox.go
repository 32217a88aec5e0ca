// Package inbox holds everything that happens to a manager until its loop takes it:
// notes about processes, commands of other goroutines, signals and Pings.
package inbox

import (
	"context"
	"os"
	"sync"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sigqueue"
)

// Inbox is the inbox of one loop. Its methods are safe for concurrent use, except
// for BeginTurn and Idle, which are for the loop. Putting something into it never
// blocks.
type Inbox struct {
	wake chan struct{} // has room for one

	mu       sync.Mutex
	notes    []proc.Note
	commands []func()
	signals  sigqueue.Queue
	failure  error         // that came with a shutdown signal
	pinged   chan struct{} // nil if no Ping waits for the next turn

	pings pings // of the loop
}

// New returns an empty Inbox.
func New() *Inbox { return &Inbox{wake: make(chan struct{}, 1)} }

// Wake receives a value after something was put into the inbox.
func (in *Inbox) Wake() <-chan struct{} { return in.wake }

// Nudge has the loop turn once more.
func (in *Inbox) Nudge() {
	select {
	case in.wake <- struct{}{}:
	default: // the loop has not yet taken the last one, and will see this too
	}
}

func (in *Inbox) put(add func()) {
	in.mu.Lock()
	add()
	in.mu.Unlock()
	in.Nudge()
}

// Note adds a note about a process.
func (in *Inbox) Note(n proc.Note) { in.put(func() { in.notes = append(in.notes, n) }) }

// Do has the loop call f in its next turn.
func (in *Inbox) Do(f func()) { in.put(func() { in.commands = append(in.commands, f) }) }

// Signal adds a signal to those that wait.
func (in *Inbox) Signal(a sigqueue.Arrival) { in.put(func() { in.signals.Add(a) }) }

// Fail adds a signal, a shutdown that has an error. The first error counts.
func (in *Inbox) Fail(a sigqueue.Arrival, err error) {
	in.put(func() {
		if in.failure == nil {
			in.failure = err
		}
		in.signals.Add(a)
	})
}

// DropContext removes signals that stand for the end of a context.
func (in *Inbox) DropContext() { in.put(func() { in.signals.DropContext() }) }

// Take empties the inbox, except for signals and Pings.
func (in *Inbox) Take() (notes []proc.Note, commands []func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	notes, commands = in.notes, in.commands
	in.notes, in.commands = nil, nil
	return notes, commands
}

// TakeCommands takes the commands alone.
func (in *Inbox) TakeCommands() (commands []func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	commands, in.commands = in.commands, nil
	return commands
}

// TakeSignal takes the next signal: the shutdown signal first.
func (in *Inbox) TakeSignal(shutdown os.Signal) (sigqueue.Arrival, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.signals.Take(shutdown)
}

// TakeSignals takes all signals.
func (in *Inbox) TakeSignals() sigqueue.Queue {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := in.signals
	in.signals = nil
	return all
}

// HasSignal reports whether a signal waits.
func (in *Inbox) HasSignal(sig os.Signal) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.signals.Has(sig)
}

// TakeFailure takes the error of Fail.
func (in *Inbox) TakeFailure() (err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	err, in.failure = in.failure, nil
	return err
}

// Ping returns nil when the loop has acted on everything that came before it, or
// ctx's error when ctx ends.
func (in *Inbox) Ping(ctx context.Context) error {
	var answer chan struct{}
	in.put(func() {
		if in.pinged == nil {
			in.pinged = make(chan struct{})
		}
		answer = in.pinged
	})
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pings are the Pings that the loop answers once it has acted on everything that
// came before them: a turn, and the signals, of which it takes one after each turn.
type pings struct {
	answer chan struct{} // nil for none
	turns  int           // after which it is closed
}

// BeginTurn is called before each turn.
func (in *Inbox) BeginTurn() {
	if in.pings.turns--; in.pings.turns <= 0 {
		in.Idle()
	}
	if in.pings.answer == nil {
		in.mu.Lock()
		in.pings.answer, in.pinged = in.pinged, nil
		in.pings.turns = max(1, len(in.signals))
		in.mu.Unlock()
	}
}

// Idle is called when the loop has nothing more to do, or ends.
func (in *Inbox) Idle() {
	if in.pings.answer != nil {
		close(in.pings.answer)
		in.pings.answer = nil
	}
}
