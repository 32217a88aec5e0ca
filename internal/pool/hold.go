package pool

// Restart decides after which ends a slot gets its next worker.
type Restart uint8

const (
	RestartAlways    Restart = iota
	RestartOnFailure         // not after a clean end
	RestartNever
)

// closed counts the slots below Max that are empty and stay so. A held slot stays
// empty until Release. A slot is done after an end for which Config.Restart starts
// no other worker, until Release or a fresh Begin.
type closed struct {
	held  map[int]bool // by index, also slots that do not exist yet
	empty int          // slots that are held or done, without a worker
	done  int          // of these: done
}

// staysEmpty reports whether a slot gets no worker while it is empty.
func (p *Pool) staysEmpty(s *slot) bool {
	return s.index != noSlot && (s.done || p.closed.held[s.index])
}

// Held reports whether a slot is held.
func (p *Pool) Held(slot int) bool { return p.closed.held[slot] }

// occupy gives a slot to a worker, or to none.
func (p *Pool) occupy(s *slot, w *worker) {
	s.worker = w
	p.recount(s)
}

// recount keeps the counters of closed slots. It follows each change of what they
// depend on.
func (p *Pool) recount(s *slot) {
	empty := s.index < p.max && s.worker == nil && p.staysEmpty(s)
	p.closed.empty += count(empty) - count(s.closed)
	p.closed.done += count(empty && s.done) - count(s.doneCounted)
	s.closed, s.doneCounted = empty, empty && s.done
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hold keeps a slot empty from its next end on, or from now on.
func (p *Pool) hold(now Time, index int) {
	if index < 0 || p.closed.held[index] {
		return
	}
	p.closed.held[index] = true
	p.effects = append(p.effects, Effect{Kind: Hold, Slot: index, Held: true})
	if index < len(p.slots) {
		s := p.slots[index]
		if s.worker == nil {
			s.dequeue()
		}
		p.recount(s)
		p.addSlot() // the next one, which this one would have made
	}
}

// release ends a hold, and gives an empty slot a worker at once: it is no longer
// done, and has no delay.
func (p *Pool) release(now Time, index int) {
	held := p.closed.held[index]
	delete(p.closed.held, index)
	if index < 0 || index >= len(p.slots) {
		if held {
			p.effects = append(p.effects, Effect{Kind: Hold, Slot: index})
		}
		return
	}
	s := p.slots[index]
	if held || s.done {
		p.effects = append(p.effects, Effect{Kind: Hold, Slot: index})
	}
	s.done = false
	s.forgetEnds()
	p.recount(s)
	if s.worker != nil {
		return
	}
	s.dequeue()
	s.due, s.busyTries = now, 0
	if index < p.max {
		p.spawnFailures, p.failedUntil = 0, 0
	}
	p.vacate(now, s, false)
}

// unhold ends a hold. An empty slot gets a worker when its delay ends.
func (p *Pool) unhold(now Time, index int) {
	if !p.closed.held[index] {
		return
	}
	delete(p.closed.held, index)
	p.effects = append(p.effects, Effect{Kind: Hold, Slot: index})
	if index >= len(p.slots) {
		return
	}
	s := p.slots[index]
	p.recount(s)
	if s.worker == nil {
		p.vacate(now, s, false)
	}
}

// reopen lets the slots that are done get workers again.
func (p *Pool) reopen(now Time) {
	for _, s := range p.slots {
		if s.done {
			s.done = false
			p.recount(s)
			p.vacate(now, s, false)
		}
	}
}

// finish closes a slot whose worker has ended by itself, and for which
// Config.Restart starts no other.
func (p *Pool) finish(now Time, s *slot) {
	s.forgetEnds()
	s.done, s.due = true, now
}

// finishes reports whether an end leaves its slot done. A replacement that is
// starting already is the next worker of the slot.
func (p *Pool) finishes(s *slot, clean bool) bool {
	if s.index == noSlot || s.index >= p.max || s.replacement != nil {
		return false
	}
	return p.cfg.Restart == RestartNever || p.cfg.Restart == RestartOnFailure && clean
}

// AllDone reports whether a generation runs and every slot is done.
func (p *Pool) AllDone() bool { return p.running && p.max > 0 && p.closed.done == p.max }
