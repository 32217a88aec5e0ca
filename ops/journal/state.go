package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/prefork-go/prefork"
)

// A State describes the last active manager of a journal. During an
// upgrade the successor becomes the active manager when it takes over. Records
// that the other manager writes about its own workers do not count.
type State struct {
	Started time.Time // zero if no manager has started
	PID     int       // of the manager
	Ended   time.Time // zero if the manager was killed, or is running

	// Workers are the running workers, or those that ran when the manager was
	// killed. They are in the order of their spawn.
	Workers []prefork.WorkerInfo
}

// String returns a description for people.
func (s State) String() string {
	started := s.Started.Format(time.RFC3339)
	switch {
	case s.Started.IsZero():
		return "no manager has started"
	case !s.Ended.IsZero():
		return fmt.Sprintf("manager %d started %s and ended %s", s.PID, started, s.Ended.Format(time.RFC3339))
	}
	return fmt.Sprintf("manager %d started %s, and has %d workers", s.PID, started, len(s.Workers))
}

// ErrNoStart is returned by PreviousState if the journal does not exist, or
// contains no start of a manager.
var ErrNoStart = errors.New("no manager has started")

// PreviousState returns the state of the last active manager. It reads the
// journal backward, no further than to the start of that manager, its takeover,
// or the last rotation. It skips lines that are not records. It returns an
// error that matches ErrNoStart if no manager has started.
//
// The journal may be open in another process. A program that opens it for
// writing should use Journal.Previous instead.
func PreviousState(path string) (State, error) {
	var t tracker
	err := t.replay(ReadBackward(path))
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
	workers map[int]prefork.WorkerInfo
}

// replay applies records that arrive from the newest to the oldest. It reads no
// further back than necessary.
func (t *tracker) replay(backward iter.Seq2[Record, error]) error {
	var recent []Record // newest first
	complete := false
	for rec, err := range backward {
		var line *LineError
		switch {
		case err == nil:
			recent = append(recent, rec)
		case !errors.As(err, &line):
			return err
		}
		if err == nil && resetsState(rec) {
			complete = true
			break
		}
	}
	for _, rec := range slices.Backward(recent) {
		t.apply(rec)
	}
	if !complete || t.now.Started.IsZero() { // a new file may follow one without a start
		return ErrNoStart
	}
	return nil
}

// resetsState reports whether the state does not depend on earlier records.
func resetsState(rec Record) bool {
	switch e := rec.Event.(type) {
	case Started:
		return !e.Successor
	case TookOver, Rotated:
		return true
	}
	return false
}

func (t *tracker) reset(s State) {
	t.workers = make(map[int]prefork.WorkerInfo)
	for _, w := range s.Workers {
		t.workers[w.PID] = w
	}
	s.Workers = nil
	t.now = s
}

func (t *tracker) state() State {
	s := t.now
	for _, w := range t.workers {
		s.Workers = append(s.Workers, w)
	}
	slices.SortFunc(s.Workers, func(a, b prefork.WorkerInfo) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.PID, b.PID))
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
		if !e.Successor {
			t.reset(State{Started: rec.Time, PID: e.PID})
		}
	case TookOver:
		t.reset(e.State)
	case Rotated:
		t.reset(e.State)
	default:
		if rec.PID == 0 || rec.PID == t.now.PID {
			t.applyActive(rec)
		}
	}
}

// applyActive applies a record of the active manager.
func (t *tracker) applyActive(rec Record) {
	switch e := rec.Event.(type) {
	case Ended:
		if e.PID == t.now.PID {
			t.now.Ended = rec.Time
		}
	case prefork.StateEvent:
		if e.Worker.State == prefork.StateGone {
			delete(t.workers, e.Worker.PID)
		} else {
			t.workers[e.Worker.PID] = e.Worker
		}
	case MoreWorkers:
		for _, w := range e.Workers {
			t.workers[w.PID] = w
		}
	case prefork.PausedEvent:
		t.workers[e.Worker.PID] = e.Worker
	case prefork.ResumeEvent:
		for pid, w := range t.workers {
			w.Paused = false
			t.workers[pid] = w
		}
	case prefork.ExitEvent:
		delete(t.workers, e.Exit.PID)
	}
}
