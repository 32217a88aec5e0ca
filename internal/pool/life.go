package pool

import "container/heap"

// The life of a worker, from its spawn to its being told to stop; exit.go has its end.

// transition is the one place where a worker's state changes.
func (p *Pool) transition(w *worker, to State) {
	if to <= w.state {
		return
	}
	if w.state < Stopping && to >= Stopping {
		p.withdraw(w, to)
		p.unpark(w)
	}
	p.out = append(p.out, Effect{Kind: Change, ID: w.id, Slot: w.slot.index, From: w.state, To: to})
	p.enter(w, to)
}

// enter counts a worker in its new state.
func (p *Pool) enter(w *worker, to State) {
	from := w.state
	w.state = to
	switch {
	case w.waits():
	case from == None || from == Standby:
		p.size.alive++
	case from < Stopping && to >= Stopping:
		p.discount(w, from)
	}
	if to == Ready {
		p.size.ready++
	}
	p.settle(w)
	p.count(w)
}

// discount no longer counts a worker that was in state from.
func (p *Pool) discount(w *worker, from State) {
	if w.yielded {
		return
	}
	p.size.alive--
	if w.busy {
		p.size.busy--
	}
	if from == Ready {
		p.size.ready--
	}
	if w.ageAt >= 0 {
		heap.Remove(&p.ages, w.ageAt)
	}
}

// begin starts a generation. Its workers run another configuration than those that made the slots wait, so the delays
// start again from the shortest; they are not forgotten, or a storm of reloads would unpace a crash loop.
func (p *Pool) begin(now Time) {
	p.dismissStandbys(now)
	p.gen++
	p.running = true
	p.crashes, p.surrendered = nil, false
	if p.failures > 0 {
		p.failures = 0
		p.failedUntil = min(p.failedUntil, after(p.failedAt, p.failureDelay(1)))
	}
	for _, s := range p.slots {
		p.forgive(s)
	}
	for _, place := range p.standby.places {
		p.forgive(place)
	}
	p.beginRoll(now)
}

func (p *Pool) forgive(s *slot) {
	if s.bad == 0 && s.clean == 0 {
		return
	}
	s.bad, s.clean, s.delay = 0, 0, 0
	s.due = min(s.due, after(s.spawnedAt, max(p.cfg.ErrRespawn, 0)))
	if s.heap != nil {
		heap.Fix(s.heap, s.at)
	}
}

func (p *Pool) spawned(now Time, ev Event) {
	s := p.asked
	if s == nil {
		panic("pool: Spawned, but no spawn was asked for")
	}
	if s.heap != &p.urgent {
		p.lastPaced = now
	}
	if s.index == noSlot {
		p.standby.alive++
	}
	replaces := s.heap == &p.rolls
	heap.Remove(s.heap, s.at)
	p.ordinal++
	w := &worker{id: p.ordinal, gen: p.askedGen, slot: s, spawnedAt: now, at: -1, ageAt: -1, idleAt: -1, prev: p.newest}
	if p.newest != nil {
		p.newest.next = w
	} else {
		p.oldest = w
	}
	p.newest = w
	p.workers[w.id] = w
	s.spawnedAt = now
	if replaces {
		s.next = w
		p.roll.surging++
	} else {
		s.worker = w
	}
	p.failures, p.failedUntil = 0, 0
	p.transition(w, Starting)
	p.startClock(now, w)
	p.joinRoll(w)
	if ev.Ready {
		p.reached(now, w)
	}
}

// startClock sets when a worker that is starting is killed for not being ready, or a standby for not being parked.
func (p *Pool) startClock(now Time, w *worker) {
	if p.cfg.ReadyTimeout > 0 {
		p.killAt(w, after(now, p.cfg.ReadyTimeout))
	}
}

// reached lets a worker have the signals that were held for it: earlier they would have killed it or been lost on it.
func (p *Pool) reached(now Time, w *worker) {
	if w.reached || w.lost || w.waits() {
		return
	}
	w.reached = true
	p.endStart(w)
	p.transition(w, Ready)
	p.takeOver(now, w)
	if w.state == Ready {
		p.age(now, w)
	}
	for _, sig := range w.held {
		if w.state < Killed {
			p.send(w, sig)
		}
	}
	w.held = nil
}

// Sooner is the earlier of two times of which each may be Never.
func Sooner(a, b Time) Time {
	if a == Never || b != Never && b < a {
		return b
	}
	return a
}
