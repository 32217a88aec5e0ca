package pool

import (
	"slices"
	"syscall"
	"time"
)

// roll replaces the workers of older generations by workers of the newest. In
// each slot the replacement starts beside the worker. The worker is stopped
// when the replacement is ready, and leaves the slot at once.
//
// A generation fails if one of its workers does not become ready, crashes within
// settleTime after it was ready, or cannot be spawned, or if a Command exits with
// code 0 too often. The workers of it that are not ready are then stopped, and the
// ready ones are replaced by the fallback generation in the same way. A generation
// can fail until settleTime after it replaced the last worker.
//
// Until a worker of the new generation was ready, empty slots get the fallback
// generation, except for up to Surge probes of the new one.
type roll struct {
	announced  bool           // the next generation replaces the workers
	stopSignal syscall.Signal // stops the workers that were replaced
	linger     time.Duration  // between a ready replacement and that signal
	lingering  []*worker      // ready replacements

	direction direction
	rollGen   int  // forward: workers of generations before this are replaced
	proven    bool // forward: a worker of the new generation was ready
	rolled    int  // forward: slots that a ready worker of the new generation holds
	complete  bool // forward: all workers are replaced
	settlesAt Time // forward and complete: when the generation can no longer fail
	failed    bool // a generation failed and no later one has got the slots
	probes    int  // forward: starting workers of the new generation
	surging   int  // replacements that are starting, or were killed before they were ready
	dying     int  // the killed ones of these
}

type direction uint8

const (
	none    direction = iota
	forward           // to the newest generation
	back              // to the fallback generation
)

// settleTime is how long a generation can still fail after it replaced the last
// worker, and how long after it was ready the crash of a worker fails its
// generation. Workers that crash at their first requests usually crash within
// it.
const settleTime = 5 * time.Second

// mustReplace reports whether a worker needs a replacement.
func (p *Pool) mustReplace(w *worker) bool { return w.recycling || p.outdated(w) }

// outdated reports whether the roll replaces the generation of a worker.
func (p *Pool) outdated(w *worker) bool {
	switch p.roll.direction {
	case forward:
		return w.gen < p.roll.rollGen
	case back:
		return w.gen > p.fallbackGen
	}
	return false
}

// ofRoll reports whether a worker belongs to the generation that a roll brings.
func (p *Pool) ofRoll(w *worker) bool {
	return p.roll.direction == forward && w.gen >= p.roll.rollGen
}

// beginRoll starts to replace the workers if a Roll event announced the
// generation, also if the last of them has just ended, but not if a shutdown
// ended them, or if there was none yet. Otherwise its workers take the slots that
// fall empty. A roll that is in progress continues, to the newest generation.
func (p *Pool) beginRoll(now Time, fresh bool) {
	r := &p.roll
	announced := r.announced && p.ordinal > 0 && (!fresh || p.Len() > 0)
	r.announced = false
	switch {
	case !announced && (p.Len() == 0 || p.settledOnNewest()):
		p.endRoll(p.gen)
		p.requeue()
	case announced:
		if r.direction == forward && r.complete { // no earlier generation is left to fall back to
			p.fallbackGen, r.failed = p.gen-1, false
		}
		r.direction, r.rollGen, r.proven, r.complete, r.rolled = forward, p.gen, false, false, 0
		for w := p.oldest; w != nil; w = w.next {
			w.rolled = false
		}
		p.stopNewer(now)
		p.requeue()
	}
}

// settledOnNewest reports whether there is no other generation that empty slots
// should get.
func (p *Pool) settledOnNewest() bool {
	r := &p.roll
	if r.direction == forward {
		return r.complete
	}
	return !r.failed
}

// endRoll makes gen the generation that empty slots get.
func (p *Pool) endRoll(gen int) {
	p.roll.direction, p.roll.failed, p.fallbackGen = none, false, gen
}

// failRoll goes back to the fallback generation. Worker id caused the failure,
// or a spawn if id is 0.
func (p *Pool) failRoll(now Time, id, gen int, why Reason) {
	p.effects = append(p.effects, Effect{Kind: RollFailed, ID: id, Gen: gen, Kept: p.fallbackGen, Reason: why})
	p.roll.direction, p.roll.proven, p.roll.failed = back, false, true
	p.stopNewer(now)
	p.requeue()
}

// stopNewer stops the workers that are newer than the fallback generation and
// were not ready yet. They leave their slots at once.
func (p *Pool) stopNewer(now Time) {
	for w := p.oldest; w != nil; w = w.next {
		if w.gen <= p.fallbackGen || w.state >= StateReady && w.slot.replacement != w || w.state >= StateStopping {
			continue
		}
		p.stop(now, w, p.cfg.Stop)
		if s := w.slot; s.worker == w {
			p.occupy(s, nil)
			p.vacate(now, s, false)
		}
	}
}

// requeue rebuilds the queue of slots that wait for a replacement.
func (p *Pool) requeue() {
	for _, s := range p.toReplace.items {
		s.queue = nil
	}
	p.toReplace.clear()
	for _, s := range p.usedSlots() {
		p.enqueueStale(s)
	}
}

// enqueueStale queues a slot for a replacement if its worker needs one and has
// none.
func (p *Pool) enqueueStale(s *slot) {
	w := s.worker
	if s.index >= p.max || s.index == noSlot || s.queue != nil || s.replacement != nil {
		return
	}
	if w != nil && w.state < StateStopping && p.mustReplace(w) {
		s.enqueue(&p.toReplace)
	}
}

// mayReplace reports whether one more replacement may be spawned.
func (p *Pool) mayReplace() bool {
	r := &p.roll
	return p.toReplace.len() > 0 && r.surging < p.cfg.Surge && (r.direction != forward || r.proven || r.probes < p.cfg.Surge)
}

// genFor returns the generation that a slot gets next.
func (p *Pool) genFor(s *slot) int {
	r := &p.roll
	if r.direction == forward && (s.queue == &p.toReplace || r.proven || r.probes < p.cfg.Surge && s.replacement == nil) {
		return p.gen
	}
	return p.fallbackGen
}

// endCounts reports whether the end of a worker of a generation predicts
// anything about the next worker of its slot.
func (p *Pool) endCounts(gen int) bool {
	if p.roll.direction == forward {
		return gen >= p.roll.rollGen || gen == p.fallbackGen && !p.roll.proven
	}
	return gen == p.fallbackGen
}

// failsRoll reports whether the end of a worker fails its generation. The delay
// of its slot must be set already.
func (p *Pool) failsRoll(now Time, w *worker, life time.Duration, clean bool) bool {
	if !p.ofRoll(w) {
		return false
	}
	if !w.ready && w.state != StateStandby {
		return true
	}
	if clean {
		// Workers of this program that were ready may exit at once on purpose.
		return w.command && w.slot.cleanEnds > freeCleanEnds
	}
	return p.isYoung(w.slot, life) || now-w.readyAt < settleTime
}

// joinRoll counts a worker that has a slot and starts.
func (p *Pool) joinRoll(w *worker) {
	if p.ofRoll(w) && !w.isStandby() {
		w.probe = true
		p.roll.probes++
	}
	p.enqueueStale(w.slot)
}

// takeOver lets a worker that is ready replace the one in its slot.
func (p *Pool) takeOver(now Time, w *worker) {
	if w.probe {
		p.endProbe(w)
		p.prove()
	}
	if w.slot.replacement != w {
		return
	}
	if p.ofRoll(w) && p.roll.linger > 0 {
		w.lingersUntil = after(now, p.roll.linger)
		p.roll.lingering = append(p.roll.lingering, w)
		return
	}
	p.replace(now, w)
}

// runLinger lets the replacements that have lingered replace their workers.
func (p *Pool) runLinger(now Time) {
	p.roll.lingering = slices.DeleteFunc(p.roll.lingering, func(w *worker) bool {
		if p.lingers(w) && w.lingersUntil > now {
			return false
		}
		if p.lingers(w) {
			p.replace(now, w)
		}
		return true
	})
}

// lingers reports whether a worker has not replaced another yet. One that has
// stopped, or got an empty slot, does not linger any more.
func (p *Pool) lingers(w *worker) bool { return w.state == StateReady && w.slot.replacement == w }

// lingerEnds returns when the next replacement has lingered, or Never.
func (p *Pool) lingerEnds() Time {
	first := Never
	for _, w := range p.roll.lingering {
		if p.lingers(w) {
			first = Sooner(first, w.lingersUntil)
		}
	}
	return first
}

// replace makes a replacement the worker of its slot, and stops the one before it.
func (p *Pool) replace(now Time, w *worker) {
	s := w.slot
	old := s.worker
	s.replacement = nil
	p.occupy(s, w)
	p.roll.surging--
	if old == nil {
		s.dequeue()
	} else if old.state < StateStopping {
		p.stopReplaced(now, old)
	}
	p.updateIdle(w)
	p.updateRolled(w)
	p.enqueueStale(s)
}

// stopReplaced stops a worker whose replacement has taken its slot.
func (p *Pool) stopReplaced(now Time, w *worker) {
	sig := p.cfg.Stop
	if !p.outdated(w) {
		w.recycled = true
	} else if p.roll.stopSignal != 0 {
		sig = p.roll.stopSignal
	}
	p.stop(now, w, sig)
}

// prove notes that the new generation can become ready. An empty slot goes to
// its replacement from then on.
func (p *Pool) prove() {
	if p.roll.proven {
		return
	}
	p.roll.proven = true
	for _, s := range p.usedSlots() {
		if s.worker == nil && s.replacement != nil && s.replacement.state < StateReady {
			s.dequeue()
			p.promoteReplacement(s)
		}
	}
}

// mayServeEarly reports whether an empty slot may go to its replacement before
// that is ready. A replacement of a generation that is not proven may not.
func (p *Pool) mayServeEarly(w *worker) bool {
	return p.roll.direction != forward || p.roll.proven || w.gen <= p.fallbackGen
}

// promoteReplacement makes the replacement of an empty slot its worker.
func (p *Pool) promoteReplacement(s *slot) {
	if s.replacement.state == StateKilled {
		p.roll.dying--
	}
	p.occupy(s, s.replacement)
	s.replacement = nil
	p.roll.surging--
	p.updateIdle(s.worker) // it may have lingered
	p.updateRolled(s.worker)
	p.enqueueStale(s)
}

// leaveSlot ends the part that a worker plays in replacements when it stops, is
// killed or is gone. A replacement that was killed before it was ready keeps
// its place until it is reaped. So no others are spawned behind one that cannot
// be killed.
func (p *Pool) leaveSlot(w *worker, to State) {
	s := w.slot
	if s.worker == w && s.queue == &p.toReplace {
		s.dequeue()
	}
	if to == StateKilled {
		if s.replacement == w {
			p.roll.dying++
		}
		return
	}
	if w.probe {
		p.endProbe(w)
	}
	if s.replacement == w {
		if w.state == StateKilled {
			p.roll.dying--
		}
		s.replacement = nil
		p.roll.surging--
		p.enqueueStale(s)
	}
}

func (p *Pool) endProbe(w *worker) {
	w.probe = false
	p.roll.probes--
}

// advanceRoll ends a roll that has no worker left to replace. A forward roll
// ends only after its generation has settled.
func (p *Pool) advanceRoll(now Time) {
	r := &p.roll
	switch {
	case r.direction == back && p.toReplace.len() == 0 && r.surging == 0:
		r.direction = none
	case r.direction != forward:
	case r.complete && now >= r.settlesAt:
		p.endRoll(p.gen)
	case !r.complete && p.allRolled():
		r.complete, r.settlesAt = true, after(now, settleTime)
		p.effects = append(p.effects, Effect{Kind: Rolled, Gen: r.rollGen})
	}
}

// allRolled reports whether a ready worker of the new generation holds each
// slot that needs one.
func (p *Pool) allRolled() bool {
	r := &p.roll
	rolled := r.rolled + p.closed.empty
	if !p.running || p.toReplace.len() > 0 || r.surging > 0 || !r.proven && p.closed.empty < p.max {
		return false
	}
	return rolled == p.max || !p.wantsWorkers() && rolled+p.vacant.len()+p.urgent.len()+p.unused() == p.max
}

// updateRolled keeps the number of slots that ready workers of the new
// generation hold.
func (p *Pool) updateRolled(w *worker) {
	rolled := p.ofRoll(w) && w.state == StateReady && w.slot.worker == w
	switch {
	case rolled && !w.rolled:
		p.roll.rolled++
	case !rolled && w.rolled:
		p.roll.rolled--
	}
	w.rolled = rolled
}

// rollSettlesAt returns when advanceRoll ends the roll, or Never. Without
// workers the generation cannot fail, and no wake-up is needed.
func (p *Pool) rollSettlesAt() Time {
	if p.roll.direction == forward && p.roll.complete && p.Len() > 0 {
		return p.roll.settlesAt
	}
	return Never
}
