package scoreboard

import "time"

// A Stall measures how long a worker has been busy without progress. The zero
// Stall has observed nothing. It belongs to one goroutine of the manager.
type Stall struct {
	last     Status
	since    time.Duration
	observed bool
}

// Observe records the status of the worker at the time now and returns how long
// the worker has been busy without a change of status, a served request or a
// heartbeat. It returns 0 for a worker that is not busy. The result is never
// too long, and too short by at most the time between two calls. now is the
// time since any origin and must not decrease.
func (s *Stall) Observe(status Status, now time.Duration) (stalled time.Duration) {
	progress := status != s.last
	if status.Damaged {
		progress = !s.last.Damaged // the counters mean nothing now
	}
	if !s.observed || progress || !status.Busy() {
		s.last, s.since, s.observed = status, now, true
		return 0
	}
	return now - s.since
}
