package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/record"
)

// ErrNoStart is returned by PreviousState if the journal does not exist, or
// contains no start of a manager.
var ErrNoStart = errors.New("no manager has started")

// PreviousState returns the state of the last active manager. A manager without
// an event, for example because its program could not listen, does not count if
// there was one before it. PreviousState reads the journal backward, no further
// than to the start of that manager, its takeover, or the last rotation. It skips
// lines that are not records. It returns an error that matches ErrNoStart if no
// manager has started.
//
// The journal may be open in another process. A program that opens it for
// writing should use Journal.Previous instead.
func PreviousState(path string) (State, error) {
	var t tracker
	_, err := t.replay(ReadBackward(path))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoStart, err)
	}
	if err != nil {
		return State{}, err
	}
	return t.state(), nil
}

// A tracker computes the State from records.
type tracker struct {
	now     State // without workers
	workers map[int]record.Worker

	// The manager of now has had an event, or none is known to have had one.
	ran bool

	// A manager that has started after that of now, and has had no event yet.
	starting State
}

// replay applies records that arrive from the newest to the oldest. It reads no
// further back than necessary. It returns the number of damaged lines, except a
// last line that its writer has not ended.
func (t *tracker) replay(backward iter.Seq2[Record, error]) (damaged int, err error) {
	var recent []Record // newest first
	var idle []Record   // those since the newest start that no event followed
	hasEvent := make(map[int]bool)
	complete := false
	for rec, err := range backward {
		var line *LineError
		switch {
		case errors.As(err, &line):
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				damaged++
			}
			continue
		case err != nil:
			return damaged, err
		}
		recent = append(recent, rec)
		switch e := rec.Event.(type) {
		case prefork.Event:
			hasEvent[rec.PID] = hasEvent[rec.PID] || ranBy(e)
		case TookOver, Rotated:
			complete = true
		case Started:
			if e.Successor {
				break
			}
			complete = hasEvent[e.PID] || hasEvent[0]
			if complete {
				break
			}
			if idle == nil {
				idle = recent
			}
			recent = nil
			clear(hasEvent)
		}
		if complete {
			break
		}
	}
	if complete {
		t.applyBackward(recent)
	}
	if t.now.Started.IsZero() { // a new file may follow one without a start
		*t = tracker{}
		t.applyBackward(idle)
	}
	if t.now.Started.IsZero() {
		return damaged, ErrNoStart
	}
	return damaged, nil
}

// applyBackward applies records, of which the newest is the first.
func (t *tracker) applyBackward(records []Record) {
	for _, rec := range slices.Backward(records) {
		t.apply(rec)
	}
}

func (t *tracker) reset(s State) {
	t.workers = make(map[int]record.Worker)
	for _, w := range s.Workers {
		t.workers[w.PID] = w
	}
	s.Workers = nil
	t.now, t.starting = s, State{}
	t.ran = !s.Started.IsZero()
}

func (t *tracker) state() State {
	s := t.now
	for _, w := range t.workers {
		s.Workers = append(s.Workers, w)
	}
	slices.SortFunc(s.Workers, func(a, b record.Worker) int {
		// Not by time alone: the clock may go back.
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Ordinal, b.Ordinal), a.Started.Compare(b.Started), cmp.Compare(a.PID, b.PID))
	})
	return s
}

// apply applies a record of any manager.
func (t *tracker) apply(rec Record) {
	if t.workers == nil {
		t.reset(State{})
	}
	switch e := rec.Event.(type) {
	case Started:
		if e.Successor {
			return
		}
		started := State{Started: rec.Time, PID: e.PID}
		if t.ran {
			t.starting = started
		} else {
			t.reset(started)
			t.ran = false
		}
	case TookOver:
		t.reset(e.State)
	case Rotated:
		t.reset(e.State)
	default:
		switch {
		case !t.starting.Started.IsZero() && (rec.PID == 0 || rec.PID == t.starting.PID):
			t.applyStarting(rec)
		case rec.PID == 0 || rec.PID == t.now.PID:
			t.applyActive(rec)
		}
	}
}

// ranBy reports whether an event shows that a manager has begun to work. The
// first Config.Reload may have failed after the others.
func ranBy(e prefork.Event) bool {
	switch e.(type) {
	case prefork.StartedEvent, prefork.EndedEvent, prefork.NoteEvent:
		return false
	}
	return true
}

// applyStarting applies a record of the manager that has started last.
func (t *tracker) applyStarting(rec Record) {
	switch e := rec.Event.(type) {
	case prefork.Event:
		if ranBy(e) {
			t.reset(t.starting)
			t.applyActive(rec)
		}
	case Ended:
		if e.PID == t.starting.PID {
			t.starting = State{}
		}
	}
}

// applyActive applies a record of the active manager.
func (t *tracker) applyActive(rec Record) {
	if e, isEvent := rec.Event.(prefork.Event); isEvent && ranBy(e) {
		t.ran = true
	}
	switch e := rec.Event.(type) {
	case Ended:
		if e.PID == t.now.PID {
			t.now.Ended = rec.Time
		}
	case prefork.StateEvent:
		if e.Worker.State == prefork.StateGone {
			delete(t.workers, e.Worker.PID)
		} else {
			t.workers[e.Worker.PID] = record.Worker{Pool: rec.Pool, WorkerInfo: e.Worker}
		}
	case MoreWorkers:
		for _, w := range e.Workers {
			t.workers[w.PID] = w
		}
	case prefork.PausedEvent:
		t.workers[e.Worker.PID] = record.Worker{Pool: rec.Pool, WorkerInfo: e.Worker}
	case prefork.ResumeEvent:
		for pid, w := range t.workers {
			if w.Pool == rec.Pool {
				w.Paused = false
				t.workers[pid] = w
			}
		}
	case prefork.ExitEvent:
		delete(t.workers, e.Exit.PID)
	}
}
