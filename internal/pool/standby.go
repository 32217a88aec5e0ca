package pool

import (
	"slices"
	"time"
)

// standby is the state of the standbys: workers that are spawned in advance and
// park until a slot falls empty. A place holds one standby and has a delay as a
// slot has. A standby belongs to its generation, and is stopped when that ends
// or fails. It counts neither as a worker nor as a spare one.
type standby struct {
	places  []*slot
	waiting heap[*slot] // places without a standby
	parked  []*worker   // in the order in which they parked
	alive   int         // standbys that are not gone
}

// standbySpawnDelay is how long no standby is spawned after one got a slot. A
// spawn takes a processor for some milliseconds. The new worker needs it more:
// the requests of the worker that ended are waiting for it.
const standbySpawnDelay = 10 * time.Millisecond

// exitingGrace is how long a worker may take to exit after Exiting. A worker
// that is still running then has become another program by exec, which looks
// like an exit. Its slot has another worker by then, so it gets the stop
// signal.
const exitingGrace = time.Second

// noSlot is the index of every place, and Step.Slot of a standby.
const noSlot = -1

// addPlace adds a place, if there may be one more. As with slots, the last place
// was never used.
func (p *Pool) addPlace() {
	if len(p.standby.places) < p.cfg.Standby {
		place := &slot{index: noSlot}
		p.standby.places = append(p.standby.places, place)
		p.enqueueEmpty(place, false)
	}
}

func (w *worker) isStandby() bool { return w.slot.index == noSlot }

// mayStandBy reports whether a standby may be spawned. There are none without
// slots, and none of a generation in a roll before one of its workers was
// ready.
func (p *Pool) mayStandBy() bool {
	return p.standby.waiting.len() > 0 && p.max > 0 && (p.roll.direction != forward || p.roll.proven)
}

// park makes a standby available for a slot.
func (p *Pool) park(w *worker) {
	if !w.isStandby() || w.state != StateStarting || w.disconnected {
		return
	}
	w.slot.strays = 0 // of its place
	p.clearDeadline(w)
	p.transition(w, StateStandby, 0)
	p.standby.parked = append(p.standby.parked, w)
}

// unpark makes a standby unavailable. It is a no-op for any other worker.
func (p *Pool) unpark(w *worker) {
	if i := slices.Index(p.standby.parked, w); i >= 0 {
		p.standby.parked = slices.Delete(p.standby.parked, i, i+1)
	}
}

// canFill reports whether a parked standby fits a slot.
func (p *Pool) canFill(s *slot) bool {
	parked := p.standby.parked
	return len(parked) > 0 && p.running && parked[0].gen == p.genFor(s)
}

// fill gives an empty slot to the standby that has parked first, and reports
// whether there was one. It ignores the delay of the slot and applies it to the
// next standby instead. So a worker that ended is replaced at once, and a slot
// in a crash loop costs no more spawns than without standbys.
func (p *Pool) fill(now Time, s *slot) bool {
	if !p.canFill(s) || !p.wantsWorkers() {
		return false
	}
	w := p.standby.parked[0]
	place := w.slot
	p.unpark(w)
	s.dequeue()
	place.worker, place.due = nil, max(place.due, s.due, after(now, standbySpawnDelay))
	p.enqueueEmpty(place, false)
	p.standby.alive--
	w.slot = s
	p.occupy(s, w)
	s.spawns++
	p.use(s)
	// The time as a standby is not part of its life.
	w.standbyTime, w.spawnedAt, s.spawnedAt = now-w.spawnedAt, now, now
	p.change(w, StateStandby, StateStarting, 0)
	p.setState(w, StateStarting)
	p.startReadyTimeout(now, w)
	p.joinRoll(w)
	if s.due > now { // standbySpawnDelay alone is not reported
		p.reportDelay(now, w, place)
	}
	return true
}

// nextFill returns the empty slot that a parked standby takes next, and when.
// The slot is nil if there is none. Spawns that fail do not delay it.
func (p *Pool) nextFill(now Time) (Time, *slot) {
	if len(p.standby.parked) == 0 {
		return Never, nil
	}
	at, s := p.nextEmpty(now)
	if s == nil || !p.canFill(s) {
		return Never, nil
	}
	return at, s
}

// fillDue gives the slots that are due to standbys.
func (p *Pool) fillDue(now Time) {
	for {
		at, s := p.nextFill(now)
		if s == nil || at > now {
			return
		}
		p.fill(now, s)
	}
}

// exiting gives the slot of a worker that is about to exit to a standby, which
// need not wait until the worker is reaped. The worker's exit status must not
// matter to the slot, so the worker keeps the slot if its life is young or a
// roll is in progress.
func (p *Pool) exiting(now Time, w *worker) {
	s, life := w.slot, now-w.spawnedAt
	young := p.firstDelay() >= 0 && p.isYoung(s, life)
	holder := w.state == StateReady && s.worker == w && s.replacement == nil
	restarts := p.cfg.Restart == RestartAlways && !p.staysEmpty(s)
	if !holder || !restarts || s.index >= p.max || young || p.roll.direction != none || !p.canFill(s) {
		return
	}
	s.dequeue() // its worker may have been recycling
	if p.endCounts(w.gen) {
		p.pace(now, s, life, false, true) // can only reset the delay, since the life is not young
	}
	p.discount(w, StateReady)
	w.exiting, s.due = true, now
	p.occupy(s, nil)
	p.updateIdle(w)
	p.setDeadline(w, after(now, exitingGrace))
	p.vacate(now, s, false)
}

// stopStandbys stops all standbys. They leave their places at once.
func (p *Pool) stopStandbys(now Time) {
	for _, place := range p.standby.places {
		w := place.worker
		if w == nil {
			continue
		}
		place.worker = nil
		p.enqueueEmpty(place, false)
		if w.state < StateStopping {
			p.stop(now, w, p.cfg.Stop)
		}
	}
}
