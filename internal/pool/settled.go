package pool

// What a caller may ask about a pool. Nothing here changes it.

// Settled reports whether a generation runs and nothing is left to do: all
// workers that are wanted are ready, no worker at work is of a generation that is
// being replaced, and no worker is being spawned. A roll that has replaced all
// workers is settled, although its generation may still fail. Workers that are
// stopping do not count; nor do workers of older generations that only a later
// exit replaces.
func (p *Pool) Settled() bool {
	if !p.running || p.rolling() || p.stopsStaggered() {
		return false
	}
	full := p.size.ready == p.size.alive && (p.size.ready+p.closed.empty >= p.max || !p.wantsWorkers())
	standbys := p.max == 0 || len(p.standby.parked) == p.cfg.Standby
	return full && standbys && p.toReplace.len() == 0
}

// rolling reports whether a roll has workers left to replace.
func (p *Pool) rolling() bool {
	return p.roll.direction == back || p.roll.direction == forward && !p.roll.complete
}

// stopsStaggered reports whether a staggered stop has not reached all workers.
func (p *Pool) stopsStaggered() bool {
	for i := range p.schedules {
		if s := &p.schedules[i]; s.sig == p.cfg.Stop && len(s.left) > 0 {
			return true
		}
	}
	return false
}

// ServingGeneration returns the generation that goes on: the newest, unless that
// is still replacing the workers or has failed.
func (p *Pool) ServingGeneration() int {
	if p.roll.direction == forward && p.roll.complete {
		return p.gen
	}
	return p.fallbackGen
}

// Wanted returns how many workers the pool wants: Max, or with dynamic sizing as
// many as there are now, without replacements.
func (p *Pool) Wanted() int {
	if p.sizesDynamically() {
		return p.size.alive - (p.roll.surging - p.roll.dying)
	}
	return p.max - p.closed.empty
}

// Needs reports whether the pool wants a worker in a slot.
func (p *Pool) Needs(slot int) bool {
	if slot >= p.max {
		return false
	}
	if slot < len(p.slots) && p.slots[slot].worker != nil {
		return true
	}
	return p.wantsWorkers() && !p.closed.held[slot] && !(slot < len(p.slots) && p.slots[slot].done)
}

// Deadline returns when a worker will be killed, or Never.
func (p *Pool) Deadline(id int) Time {
	w := p.workers[id]
	if w == nil || w.state == StateStarting && p.readyByAge(w) { // it will be ready
		return Never
	}
	if w.exiting && w.state < StateStopping && !w.stuck { // it would be stopped first
		return Never
	}
	return p.deadlineOf(w)
}

// HeldUntil returns the time before which no worker is spawned after failed
// spawns, or Never. It may have passed.
func (p *Pool) HeldUntil() Time {
	if p.failedUntil == 0 {
		return Never
	}
	return p.failedUntil
}

// Slot is the state of a slot that was used or is held.
type Slot struct {
	Spawns  int // workers that it has had
	Crashes int // workers in a row that ended abnormally in the newest generation
	Due     Time
	Held    bool
	Done    bool
}

// Slots returns the number of slots up to the last one that was used or is held.
func (p *Pool) Slots() int {
	n := len(p.slots)
	for n > 0 && !p.slots[n-1].used && !p.closed.held[n-1] {
		n--
	}
	return n
}

// Slot returns the state of a slot below Slots. Due is when an empty slot gets
// its next worker at the earliest, and Never for one that has a worker or needs
// none.
func (p *Pool) Slot(i int) Slot {
	s := p.slots[i]
	due := Never
	if s.worker == nil && i < p.max && p.running && p.wantsWorkers() && !p.staysEmpty(s) {
		due = s.due
	}
	return Slot{Spawns: s.spawns, Crashes: s.crashes, Due: due, Held: p.closed.held[i], Done: s.done}
}

// countEnd counts the crashes of a slot in a row. A crash after a life that was
// not young is the first one again.
func (p *Pool) countEnd(s *slot, w *worker, now Time, reason Reason) {
	switch reason {
	case ReasonCrashed, ReasonStuck, ReasonReadyTimeout, ReasonOutOfMemory:
		if w.ready && !p.isYoung(s, now-w.spawnedAt) {
			s.crashes = 0
		}
		s.crashes++
	case ReasonFinished:
		s.crashes = 0
	}
}
