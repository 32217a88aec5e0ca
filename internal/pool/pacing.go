package pool

import (
	"container/heap"
	"math"
	"time"
)

// A life is young when it is shorter than this, or than ErrRespawn where that is longer.
const youngLife = time.Second

// No delay grows beyond this, unless ErrRespawn itself is longer.
const longestDelay = time.Minute

// freeCleanEnds is how many young clean ends in a row cost nothing: a worker that found no work and left should be
// replaced at once, a program that does nothing but leave should not fork more than a hundred times a second (D7).
const freeCleanEnds = 2

// Without pacing a spawn that fails must still not be tried in a loop.
const (
	unpacedFailure        = 100 * time.Millisecond
	unpacedFailureLongest = time.Second
)

// pace sets when a slot may be spawned again after a life that ended by itself.
func (p *Pool) pace(now Time, s *slot, life time.Duration, clean bool) {
	e := p.cfg.ErrRespawn
	if e < 0 {
		return
	}
	if life/10 >= s.delay {
		s.bad, s.delay = 0, 0
	}
	if life >= max(youngLife, e) {
		s.clean = 0
		return
	}
	if clean {
		s.clean++
		if s.clean > freeCleanEnds {
			s.due = max(now, after(s.spawnedAt, e))
		}
		return
	}
	s.clean = 0
	s.delay = grown(e, s.bad, max(longestDelay, e))
	s.bad++
	// Delays spread both ways, so that slots that crashed together do not go on crashing together; but none is shorter
	// than ErrRespawn.
	shortest, longest := max(e, s.delay-s.delay/5), after(s.delay, s.delay/5)
	wait := shortest + time.Duration(p.cfg.Jitter()*float64(longest-shortest))
	s.due = max(now, after(s.spawnedAt, wait))
}

// failureDelay is how long all spawns wait after so many in a row that failed: it is the system that fails then, or the program's
// file, and neither is the fault of a slot.
func (p *Pool) failureDelay(failures int) time.Duration {
	e, longest := p.cfg.ErrRespawn, max(longestDelay, p.cfg.ErrRespawn)
	if e <= 0 {
		e, longest = unpacedFailure, unpacedFailureLongest
	}
	return grown(e, failures-1, longest)
}

// after is the moment d after t. A duration may mean for ever: then it is the end of all time, not one long past.
func after(t Time, d time.Duration) Time {
	if d > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + d
}

// grown is base doubled n times, at most longest.
func grown(base time.Duration, n int, longest time.Duration) time.Duration {
	d := base
	for ; n > 0 && d < longest; n-- {
		d *= 2
	}
	return min(d, longest)
}

// nextSpawn finds the slot that is to be spawned next, and when.
func (p *Pool) nextSpawn(now Time) (Time, *slot) {
	if !p.running {
		return Never, nil
	}
	at, next := p.nextEmpty(now)
	// A replacement can wait for what is missing.
	if p.mayReplace() && (next == nil || at > now) {
		if t := p.paced(p.rolls[0]); next == nil || t < at {
			at, next = t, p.rolls[0]
		}
	}
	// A standby can wait for both.
	if p.mayStandBy() && (next == nil || at > now) {
		if t := p.paced(p.standby.waiting[0]); next == nil || t < at {
			at, next = t, p.standby.waiting[0]
		}
	}
	if next == nil {
		return Never, nil
	}
	return max(at, p.failedUntil), next
}

// nextEmpty finds the empty slot that is to have a worker next, and when; a spawn for it may have to wait longer.
func (p *Pool) nextEmpty(now Time) (at Time, next *slot) {
	if !p.running || !p.wants() {
		return Never, nil
	}
	if len(p.vacant) > 0 {
		next = p.vacant[0]
		at = p.paced(next)
	}
	// What crashed is not held back by SpawnInterval, which spaces the starts of many: its own pace is enough (P17). Nor
	// does it hold back those that are, or one slot that crashes again and again would keep the others empty (D4).
	if len(p.urgent) > 0 && (next == nil || p.urgent[0].due < max(at, now)) {
		next = p.urgent[0]
		at = next.due
	}
	return at, next
}

// paced is when a slot is due that SpawnInterval holds back.
func (p *Pool) paced(s *slot) Time {
	if p.lastPaced == Never {
		return s.due
	}
	return max(s.due, after(p.lastPaced, p.cfg.SpawnInterval))
}

// spawnFailed makes all spawns wait. What fails for a new generation, and has not for the one before, is its own fault.
func (p *Pool) spawnFailed(now Time) {
	if p.roll.way == forward && p.askedGen >= p.roll.fresh {
		p.giveUp(now, 0, p.askedGen, 0)
		return
	}
	p.failed(now)
	p.failures++
	p.failedAt, p.failedUntil = now, after(now, p.failureDelay(p.failures))
}

// wait puts an empty slot among those that wait for a worker.
func (p *Pool) wait(s *slot, urgent bool) {
	switch {
	case s.index == noSlot:
		s.heap = &p.standby.waiting
	case urgent:
		s.heap = &p.urgent
	default:
		s.heap = &p.vacant
	}
	heap.Push(s.heap, s)
}

// resize sets the number of slots in use. Surplus workers are told to stop; their slots live until they are reaped.
func (p *Pool) resize(now Time, n int) {
	old := p.max
	p.max = n
	if n == 0 {
		p.dismissStandbys(now)
	}
	for i := old; i < n; i++ {
		if i == len(p.slots) {
			p.slots = append(p.slots, &slot{index: i, due: now})
		}
		if s := p.slots[i]; s.worker == nil {
			p.wait(s, false)
		}
	}
	for i := n; i < old; i++ {
		s := p.slots[i]
		if s.heap != nil {
			heap.Remove(s.heap, s.at)
		}
		for _, w := range []*worker{s.next, s.worker} {
			if w != nil && w.state < Stopping {
				p.tell(now, w, p.cfg.Stop)
			}
		}
	}
}

// slotHeap orders slots by the time at which they are due, those of one time by index.
type slotHeap []*slot

func (h slotHeap) Len() int { return len(h) }
func (h slotHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].index < h[j].index
}
func (h slotHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *slotHeap) Push(x any) {
	s := x.(*slot)
	s.at = len(*h)
	*h = append(*h, s)
}
func (h *slotHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.heap, s.at = nil, -1
	return s
}
