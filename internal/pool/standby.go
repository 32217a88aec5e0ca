package pool

import (
	"container/heap"
	"slices"
	"time"
)

// Standbys are workers that are started ahead: each waits, parked, for a slot that falls empty, and is in it at once. They
// have places of their own, which are paced as slots are; what is -1 as a slot is such a place. A standby belongs to its
// generation and is told to stop when that ends (Halt), or is given up. It counts neither as a worker nor as a spare one.
type standby struct {
	places  []*slot
	waiting slotHeap  // those places without a standby, by due time
	parked  []*worker // who has waited longest comes first
	alive   int       // standbys that are not gone
}

// breather is how long no other standby is started after one was given a slot. To start a process takes a processor for
// some milliseconds; whoever has just been given a dead worker's place, with what waits for it, needs that more.
const breather = 10 * time.Millisecond

// noSlot is the index of all places.
const noSlot = -1

func newStandby(n int) (sb standby) {
	for range n {
		sb.places = append(sb.places, &slot{index: noSlot})
	}
	return sb
}

// Standbys is the number of standbys that are not gone.
func (p *Pool) Standbys() int { return p.standby.alive }

// waits tells whether a worker is a standby.
func (w *worker) waits() bool { return w.slot.index == noSlot }

// mayStandBy tells whether standbys are to be started: not those of a generation that has yet to show that it can become
// ready, and not where there is nothing that they could replace.
func (p *Pool) mayStandBy() bool {
	return len(p.standby.waiting) > 0 && p.max > 0 && (p.roll.way != forward || p.roll.proven)
}

// park notes that a standby has reached Start.
func (p *Pool) park(w *worker) {
	if !w.waits() || w.state != Starting || w.lost {
		return
	}
	p.endStart(w)
	p.transition(w, Standby)
	p.standby.parked = append(p.standby.parked, w)
}

// fill gives an empty slot to the standby that has waited longest; false if there is none. A worker that has died is
// replaced so at once, whatever the pace of its slot: it is the standby started behind that waits for it. So a slot
// whose workers crash costs no more starts than without standbys.
func (p *Pool) fill(now Time, s *slot) bool {
	if !p.canFill(s) || !p.wants() {
		return false
	}
	w := p.standby.parked[0]
	place := w.slot
	p.unpark(w)
	if s.heap != nil {
		heap.Remove(s.heap, s.at)
	}
	place.worker, place.due = nil, max(place.due, s.due, after(now, breather))
	p.wait(place, false)
	p.standby.alive--
	w.slot, s.worker = s, w
	w.ahead, w.spawnedAt, s.spawnedAt = now-w.spawnedAt, now, now // what was waiting is not part of its life
	p.out = append(p.out, Effect{Kind: Change, ID: w.id, Slot: s.index, From: Standby, To: Starting})
	p.enter(w, Starting)
	p.startClock(now, w)
	p.joinRoll(w)
	if s.due > now { // not of the breather, which is no one's fault
		p.tellDelay(now, w, place)
	}
	return true
}

// yieldGrace is how long a worker that has yielded may take to end. One that is still there then has become another program
// in place (exec), which looks like an end; its slot has a worker by now, so it is told to stop.
const yieldGrace = time.Second

// yield has a standby take the slot of a worker that is about to end: it need not wait until that is reaped. How it ends must
// not matter to the slot, so its life is not a young one, and there is no roll.
func (p *Pool) yield(now Time, w *worker) {
	s, e, life := w.slot, p.cfg.ErrRespawn, now-w.spawnedAt
	young := e >= 0 && life < max(youngLife, e)
	if w.state != Ready || s.worker != w || s.next != nil || s.index >= p.max || young || p.roll.way != still || !p.canFill(s) {
		return
	}
	if s.heap != nil { // it was to be replaced
		heap.Remove(s.heap, s.at)
	}
	if p.counts(w.gen) {
		p.pace(now, s, life, true) // a life that was not young only ever forgives
	}
	p.discount(w, Ready)
	w.yielded, s.worker, s.due = true, nil, now
	p.settle(w)
	p.killAt(w, after(now, yieldGrace))
	p.vacate(now, s, false)
}

func (p *Pool) canFill(s *slot) bool {
	parked := p.standby.parked
	return len(parked) > 0 && p.running && parked[0].gen == p.genFor(s)
}

// fillDue has standbys take the slots that are to have a worker now, also while spawns fail: these need none. It returns when
// it is to be called again.
func (p *Pool) fillDue(now Time) Time {
	for len(p.standby.parked) > 0 {
		at, s := p.nextEmpty(now)
		if s == nil || !p.canFill(s) {
			break
		}
		if at > now {
			return at
		}
		p.fill(now, s)
	}
	return Never
}

// dismissStandbys tells all standbys to stop. They leave their places at once.
func (p *Pool) dismissStandbys(now Time) {
	for _, place := range p.standby.places {
		w := place.worker
		if w == nil {
			continue
		}
		place.worker = nil
		p.wait(place, false)
		if w.state < Stopping {
			p.tell(now, w, p.cfg.Stop)
		}
	}
}

// unpark takes a standby that has been told to stop, or is about to end or gone, from those that could be given a slot.
func (p *Pool) unpark(w *worker) {
	if i := slices.Index(p.standby.parked, w); i >= 0 {
		p.standby.parked = slices.Delete(p.standby.parked, i, i+1)
	}
}
