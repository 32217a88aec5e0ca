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

// State is what a journal tells of the last manager, which is the one that rules: a successor from when it has taken over. What
// another writes meanwhile, of its own workers, does not count.
type State struct {
	Started time.Time            // zero if there was none
	PID     int                  // the manager's
	Ended   time.Time            // zero if it was killed, or runs
	Workers []prefork.WorkerInfo // that were there when it was killed, or are there now; in order of their spawn
}

func (s State) String() string {
	switch {
	case s.Started.IsZero():
		return "no manager has started"
	case !s.Ended.IsZero():
		return fmt.Sprintf("manager %d started %s and ended %s", s.PID, s.Started.Format(time.RFC3339), s.Ended.Format(time.RFC3339))
	}
	return fmt.Sprintf("manager %d started %s, and has %d workers", s.PID, s.Started.Format(time.RFC3339), len(s.Workers))
}

// ErrNoStart says that a journal does not tell of the start of a manager.
var ErrNoStart = errors.New("no manager has started")

// PreviousState reads what a journal tells of the last manager, from its end and no further than to that manager's start, its
// taking over, or the last rotation. Lines that are no records are skipped.
//
// Of a journal that there is not, or that tells of no start, the error is an ErrNoStart.
func PreviousState(path string) (State, error) {
	var t tracker
	if err := t.replay(ReadBackward(path)); err != nil {
		return State{}, notThere(err)
	}
	return t.state(), nil
}

// replay follows records that come from the newest to the oldest, as far back as they matter.
func (t *tracker) replay(backward iter.Seq2[Record, error]) error {
	var recent []Record // the newest first
	whole := false
	for rec, err := range backward {
		var line *LineError
		switch {
		case err == nil:
			recent = append(recent, rec)
		case !errors.As(err, &line):
			return err
		}
		if err == nil && isStart(rec) {
			whole = true
			break
		}
	}
	for _, rec := range slices.Backward(recent) {
		t.apply(rec)
	}
	if !whole || t.now.Started.IsZero() { // a new file may follow one without a start
		return ErrNoStart
	}
	return nil
}

// isStart tells whether what came before a record does not matter.
func isStart(rec Record) bool {
	switch e := rec.Event.(type) {
	case Started:
		return !e.Successor
	case TookOver, Rotated:
		return true
	}
	return false
}

// tracker follows the records of the manager that rules, or of one.
type tracker struct {
	now     State // without workers
	workers map[int]prefork.WorkerInfo
}

func (t *tracker) restore(s State) {
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

func (t *tracker) apply(rec Record) {
	if t.workers == nil {
		t.restore(State{})
	}
	switch e := rec.Event.(type) {
	case Started:
		if !e.Successor {
			t.restore(State{Started: rec.Time, PID: e.PID})
		}
		return
	case TookOver:
		t.restore(e.State)
		return
	case Rotated:
		t.restore(e.State)
		return
	}
	if rec.PID != 0 && rec.PID != t.now.PID {
		return
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

func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNoStart, err)
	}
	return err
}
