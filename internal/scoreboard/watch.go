package scoreboard

import "time"

// A Watch remembers when a worker was last seen to move. The zero Watch has seen nothing. It belongs to one goroutine of
// the manager.
type Watch struct {
	last Status
	at   time.Duration
	seen bool
}

// Look returns how long the worker has been busy without a beat, as far as can be told from the times at which it was
// looked at: never more than is true, and less by at most the time between two looks. It is 0 for one that is not busy.
// now is what has passed since an origin of the caller's choice, and does not go back.
func (w *Watch) Look(s Status, now time.Duration) (quiet time.Duration) {
	moved := s != w.last
	if s.Damaged {
		moved = !w.last.Damaged // what it counts says nothing any more
	}
	if !w.seen || moved || !s.Busy() {
		w.last, w.at, w.seen = s, now, true
		return 0
	}
	return now - w.at
}
