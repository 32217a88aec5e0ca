package sockets

import (
	"maps"
	"slices"
	"time"
)

// backoff is a time in which a worker gets no connections of a group, or no
// sockets of other slots, because it could not accept them.
type backoff struct {
	until, delay time.Duration
	accepts      bool // it accepts on its own socket, and only cannot adopt another
}

// A backoff lasts minBackoff. One that follows within resetBackoff is twice as
// long as the one before, and at most maxBackoff.
const (
	minBackoff   = time.Second
	maxBackoff   = 30 * time.Second
	resetBackoff = time.Minute
)

// AcceptFailed notes that a worker had no descriptor or memory for a connection.
// The next Steer directs connections to others, which also serve its queue. It
// reports whether this is the first failure for a while.
func (set *Set) AcceptFailed(now time.Duration, group, worker int) (first bool) {
	all := set.groups()
	return group < len(all) && all[group].backOff(now, worker, false)
}

// AdoptFailed notes that a worker did not get the socket of another slot. The next
// Steer chooses another worker. It reports whether this is the first failure for a
// while.
func (set *Set) AdoptFailed(now time.Duration, group, slot, worker int) (first bool) {
	all := set.groups()
	if group >= len(all) {
		return false
	}
	g := all[group]
	if slot < len(g.adopters) && g.adopters[slot] == worker {
		g.adopters[slot] = 0
	}
	return g.backOff(now, worker, true)
}

func (g *group) backOff(now time.Duration, worker int, accepts bool) (first bool) {
	b, again := g.backoffs[worker]
	if again && now < b.until && (accepts || !b.accepts) {
		return false // a report of what is known
	}
	again = again && now-b.until < resetBackoff
	if delay := 2 * b.delay; again {
		b.delay = min(delay, maxBackoff)
	} else {
		b.delay = minBackoff
	}
	b.until, b.accepts = now+b.delay, accepts
	if g.backoffs == nil {
		g.backoffs = make(map[int]backoff)
	}
	g.backoffs[worker] = b
	return !again
}

// candidates returns the arguments for reuseport.Assign, and when a backoff ends.
// If all workers that accept are in one, all get connections, as with one socket
// for all.
func (g *group) candidates(now time.Duration, index int, workers []Worker) (own, ready []int, again time.Duration) {
	own, ready, again = make([]int, len(g.fds)), []int{}, Never
	maps.DeleteFunc(g.backoffs, func(id int, _ backoff) bool {
		return !slices.ContainsFunc(workers, func(w Worker) bool { return w.ID == id })
	})
	var failing []Worker
	for _, w := range workers {
		if !slices.Contains(w.Accepting, index) {
			continue
		}
		if b := g.backoffs[w.ID]; now < b.until {
			again = min(again, b.until)
			if !b.accepts {
				failing = append(failing, w)
				continue
			}
		} else {
			ready = append(ready, w.ID)
		}
		setOwn(own, w)
	}
	if !slices.ContainsFunc(own, func(id int) bool { return id != 0 }) && len(ready) == 0 {
		for _, w := range failing {
			setOwn(own, w)
		}
	}
	slices.Sort(ready)
	return own, ready, again
}

func setOwn(own []int, w Worker) {
	if w.Slot < len(own) {
		own[w.Slot] = w.ID
	}
}
