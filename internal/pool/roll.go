package pool

import (
	"container/heap"
	"syscall"
	"time"
)

// A roll replaces the workers of older generations by those of the newest: in each slot the replacement is started
// beside the worker, and only when it is ready is the old one told to stop, which then lets go of the slot at once.
//
// A generation that fails (a worker of it does not become ready, or is paced for what it did then, or cannot be
// spawned) is given up: its workers that are not ready are told to stop, and the ready ones are replaced by the generation
// before in the same way. That holds until a second after the last one was replaced. Until its first worker is ready, slots that fall empty are filled by the generation before, save
// for one or as many as Surge that try the new one.
type roll struct {
	marked bool           // the next generation rolls
	sig    syscall.Signal // by which replaced workers are told to stop

	way     way
	fresh   int  // forward: workers of generations before this are to be replaced
	proven  bool // forward: a worker of the new generation was ready
	holds   int  // forward: slots that a ready worker of the new generation holds
	told    bool // forward: that nobody is left to replace
	settles Time // forward, told: when the way back is given up
	gaveUp  bool // a generation was given up, and none has taken its place: empty slots go on getting the good one
	probes  int  // forward: its workers that are starting
	surging int  // replacements that are starting, or were killed for not being ready …
	dying   int  // … which these are
}

type way uint8

const (
	still way = iota // nothing is being replaced
	forward
	back // to the good generation
)

// stale tells whether a worker is to be replaced.
func (p *Pool) stale(w *worker) bool { return w.retiring || p.outdated(w) }

// outdated tells whether its generation is.
func (p *Pool) outdated(w *worker) bool {
	switch p.roll.way {
	case forward:
		return w.gen < p.roll.fresh
	case back:
		return w.gen > p.good
	}
	return false
}

// beginRoll sets out to replace the workers, if the generation that begins was announced by a Roll; else its workers take
// the places of those that end. A roll that is under way goes on, to the newest generation.
func (p *Pool) beginRoll(now Time) {
	r := &p.roll
	marked := r.marked && p.Len() > 0
	r.marked = false
	switch {
	case p.Len() == 0, !marked && r.way == forward && r.told, !marked && r.way != forward && !r.gaveUp:
		p.good, r.way, r.gaveUp = p.gen, still, false
		p.requeue()
	case marked:
		if r.way == forward && r.told { // there is nothing left of the one before it to go back to
			p.good, r.gaveUp = p.gen-1, false
		}
		r.way, r.fresh, r.proven, r.told, r.holds = forward, p.gen, false, false, 0
		for w := p.oldest; w != nil; w = w.next {
			w.holds = false
		}
		p.dismissNewer(now)
		p.requeue()
	}
}

// giveUp goes back to the good generation. The failure is that of worker id, or of a spawn.
func (p *Pool) giveUp(now Time, id, gen int, why Reason) {
	p.out = append(p.out, Effect{Kind: GaveUp, ID: id, Gen: gen, Back: p.good, Reason: why})
	p.roll.way, p.roll.proven, p.roll.gaveUp = back, false, true
	p.dismissNewer(now)
	p.requeue()
}

// dismissNewer tells those to stop that are newer than the good generation and were not ready yet. As all that a roll
// tells to stop, they let go of their slots at once.
func (p *Pool) dismissNewer(now Time) {
	for w := p.oldest; w != nil; w = w.next {
		if w.gen <= p.good || w.state >= Ready {
			continue
		}
		p.tell(now, w, p.cfg.Stop)
		if s := w.slot; s.worker == w {
			s.worker = nil
			p.vacate(now, s, false)
		}
	}
}

// requeue finds anew which slots wait for a replacement.
func (p *Pool) requeue() {
	for _, s := range p.rolls {
		s.heap = nil
	}
	p.rolls = p.rolls[:0]
	for _, s := range p.slots[:p.max] {
		p.queue(s)
	}
}

// queue lets a slot wait for a replacement, if its worker is to have one and has none.
func (p *Pool) queue(s *slot) {
	w := s.worker
	if s.index >= p.max || s.index == noSlot || s.heap != nil || s.next != nil || w == nil || w.state >= Stopping || !p.stale(w) {
		return
	}
	s.heap = &p.rolls
	heap.Push(s.heap, s)
}

// mayReplace tells whether one more replacement may be started.
func (p *Pool) mayReplace() bool {
	r := &p.roll
	return len(p.rolls) > 0 && r.surging < p.cfg.Surge && (r.way != forward || r.proven || r.probes < p.cfg.Surge)
}

// genFor is the generation that a slot gets next.
func (p *Pool) genFor(s *slot) int {
	r := &p.roll
	if r.way == forward && (s.heap == &p.rolls || r.proven || r.probes < p.cfg.Surge && s.next == nil) {
		return p.gen
	}
	return p.good
}

// counts tells whether the end of a worker of a generation says anything about the next worker of its slot (R5, P19).
func (p *Pool) counts(gen int) bool {
	if p.roll.way == forward {
		return gen >= p.roll.fresh || gen == p.good && !p.roll.proven
	}
	return gen == p.good
}

// fails tells whether the end of a worker means that its generation is given up. Its slot has been paced for it.
func (p *Pool) fails(w *worker, life time.Duration, clean bool) bool {
	if p.roll.way != forward || w.gen < p.roll.fresh {
		return false
	}
	young := life < max(youngLife, p.cfg.ErrRespawn)
	return !w.reached && w.state != Standby || young && (!clean || w.slot.clean > freeCleanEnds)
}

// joinRoll counts a worker that was spawned.
func (p *Pool) joinRoll(w *worker) {
	if p.roll.way == forward && w.gen >= p.roll.fresh && !w.waits() {
		w.probe = true
		p.roll.probes++
	}
	p.queue(w.slot)
}

// takeOver lets a worker that is ready replace the one in its slot.
func (p *Pool) takeOver(now Time, w *worker) {
	if w.state != Ready {
		return
	}
	if w.probe {
		p.endProbe(w)
		p.prove()
	}
	s := w.slot
	if s.next != w {
		return
	}
	old := s.worker
	s.worker, s.next = w, nil
	p.roll.surging--
	switch {
	case old == nil:
		heap.Remove(s.heap, s.at)
	case old.state < Stopping && p.outdated(old) && p.roll.sig != 0:
		p.tell(now, old, p.roll.sig)
	case old.state < Stopping:
		old.retired = !p.outdated(old)
		p.tell(now, old, p.cfg.Stop)
	}
	p.settle(w)
	p.count(w)
	p.queue(s)
}

// prove notes that the new generation can become ready. Slots that fell empty beside a replacement are the replacement's
// from then on.
func (p *Pool) prove() {
	if p.roll.proven {
		return
	}
	p.roll.proven = true
	for _, s := range p.slots[:p.max] {
		if s.worker == nil && s.next != nil && s.next.state < Ready {
			heap.Remove(s.heap, s.at)
			p.promote(s)
		}
	}
}

func (p *Pool) promote(s *slot) {
	if s.next.state == Killed {
		p.roll.dying--
	}
	s.worker, s.next = s.next, nil
	p.roll.surging--
	p.queue(s)
}

// withdraw takes a worker out of the roll. A replacement that is killed because it did not become ready keeps its place
// until it is reaped, so that one that cannot be killed has no crowd of others after it.
func (p *Pool) withdraw(w *worker, to State) {
	s := w.slot
	if s.worker == w && s.heap == &p.rolls {
		heap.Remove(s.heap, s.at)
	}
	if to == Killed {
		if s.next == w {
			p.roll.dying++
		}
		return
	}
	if w.probe {
		p.endProbe(w)
	}
	if s.next == w {
		if w.state == Killed {
			p.roll.dying--
		}
		s.next = nil
		p.roll.surging--
		p.queue(s)
	}
}

func (p *Pool) endProbe(w *worker) {
	w.probe = false
	p.roll.probes--
}

// vacate has an empty slot filled: by its replacement, where that is as good as any, by a standby, or by a spawn.
func (p *Pool) vacate(now Time, s *slot, urgent bool) {
	switch {
	case s.index >= p.max:
	case s.next != nil && (p.roll.way != forward || p.roll.proven || s.next.gen <= p.good):
		p.promote(s)
	case s.index != noSlot && p.fill(now, s):
	default:
		p.wait(s, urgent)
	}
}

// settleTime is how long a generation that has replaced the one before can still be given up: as a rule, who crashes at the
// first request crashes within it.
const settleTime = youngLife

// endRoll ends a roll that has nobody left to replace.
func (p *Pool) endRoll(now Time) {
	r := &p.roll
	switch {
	case r.way == back && len(p.rolls) == 0 && r.surging == 0:
		r.way = still
	case r.way != forward:
	case r.told && now >= r.settles:
		r.way, r.gaveUp, p.good = still, false, p.gen
	case !r.told && p.complete():
		r.told, r.settles = true, after(now, settleTime)
		p.out = append(p.out, Effect{Kind: Rolled, Gen: r.fresh})
	}
}

// complete tells whether each slot is held by a ready worker of the new generation, or needs none.
func (p *Pool) complete() bool {
	r := &p.roll
	if !p.running || len(p.rolls) > 0 || r.surging > 0 || !r.proven {
		return false
	}
	return r.holds == p.max || !p.wants() && r.holds+len(p.vacant)+len(p.urgent) == p.max
}

// count keeps the number of slots that ready workers of the new generation hold.
func (p *Pool) count(w *worker) {
	holds := p.roll.way == forward && w.gen >= p.roll.fresh && w.state == Ready && w.slot.worker == w
	switch {
	case holds && !w.holds:
		p.roll.holds++
	case !holds && w.holds:
		p.roll.holds--
	}
	w.holds = holds
}

// settlesAt is when endRoll has something to do next. Without workers nobody can fail, and a wake-up would serve nobody.
func (p *Pool) settlesAt() Time {
	if p.roll.way == forward && p.roll.told && p.Len() > 0 {
		return p.roll.settles
	}
	return Never
}
