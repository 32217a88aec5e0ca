// Package pause is a worker's side of a cooperative pause: the manager asks, a
// worker waits when it reaches its checkpoint, and reports that it has paused.
//
// A message from the manager sets a word in the worker's memory, so a checkpoint
// that is passed costs no system call.
package pause

import (
	"context"
	"sync"
	"sync/atomic"
)

// State is the pause that a worker was asked for. It is safe for concurrent use.
type State struct {
	report func(n int) // tells the manager that the worker has paused
	asked  atomic.Bool

	mu         sync.Mutex
	n          int           // the number of the pause in force; 0 for none
	reported   int           // the last one that was reported
	changed    chan struct{} // closed when a pause begins or ends
	closed     chan struct{}
	activities int // that have not ended
	waiting    int // of these
}

// New returns the state of a worker that is started in pause n; 0 for none.
// report is called when the worker has paused, with the number of the pause.
func New(n int, report func(n int)) *State {
	s := &State{report: report, changed: make(chan struct{}), closed: make(chan struct{})}
	close(s.closed)
	s.Set(n)
	return s
}

// Set begins pause n, or ends the pause if n is 0.
func (s *State) Set(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != s.n {
		s.n = n
		s.asked.Store(n != 0)
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Channel returns a channel that is closed while the state is as given, or when
// it becomes so.
func (s *State) Channel(paused bool) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (s.n != 0) == paused {
		return s.closed
	}
	return s.changed
}

// Activity is one of several things that a worker does at a time. It belongs to
// the State that made it.
type Activity struct{ waits, ended bool }

// Begin returns a new activity.
func (s *State) Begin() *Activity {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activities++
	return new(Activity)
}

// End ends an activity. Ending it again is a no-op.
func (s *State) End(a *Activity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ended {
		return
	}
	a.ended = true
	s.activities--
	if a.waits {
		s.waiting--
	}
	s.reportIfAll()
}

// Checkpoint waits until there is no pause, and reports whether ctx goes on. The
// activity is nil for the worker as a whole.
func (s *State) Checkpoint(ctx context.Context, a *Activity) bool {
	if s.asked.Load() {
		s.wait(ctx, a)
	}
	return ctx.Err() == nil
}

func (s *State) wait(ctx context.Context, a *Activity) {
	for {
		s.mu.Lock()
		n, changed := s.n, s.changed
		switch {
		case a != nil:
			s.setWaits(a, n != 0)
			s.reportIfAll()
		case n != 0 && n != s.reported:
			s.reported = n
			s.report(n)
		}
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if a != nil {
				s.mu.Lock()
				s.setWaits(a, false)
				s.mu.Unlock()
			}
			return
		}
	}
}

// setWaits counts an activity as waiting or not. One that has ended does not
// count.
func (s *State) setWaits(a *Activity, waits bool) {
	if a.waits == waits {
		return
	}
	a.waits = waits
	switch {
	case a.ended:
	case waits:
		s.waiting++
	default:
		s.waiting--
	}
}

// reportIfAll reports that the worker has paused, once in each pause, if all its
// activities wait.
func (s *State) reportIfAll() {
	if s.n != 0 && s.n != s.reported && s.activities > 0 && s.waiting == s.activities {
		s.reported = s.n
		s.report(s.n)
	}
}
