package pool

import "container/heap"

func (p *Pool) exited(now Time, w *worker, ev Event) {
	p.remove(w)
	s := w.slot
	holder := s.worker == w
	reason, own := classify(w, ev)
	// Only what a worker does by itself says anything about the next one, and one that was replaced has no next one.
	urgent, fails := false, false
	if holder || s.next == w {
		s.due = now
		if own && p.running && p.counts(w.gen) {
			life := now - w.spawnedAt
			if ev.Killed && !ev.Memory && !w.reached && w.state < Killed { // by somebody who has perhaps killed all
				life += w.ahead
			}
			urgent = !ev.Clean
			p.pace(now, s, life, ev.Clean)
			fails = p.fails(w, life, ev.Clean)
		}
		if fails { // the slot goes back to the generation before, which is not to blame
			s.bad, s.clean, s.delay, s.due = 0, 0, 0, now
		}
	}
	p.withdraw(w, Gone)
	if holder {
		s.worker = nil
	}
	if fails {
		p.giveUp(now, w.id, w.gen, reason)
	}
	p.out = append(p.out, Effect{Kind: Change, ID: w.id, Slot: s.index, From: w.state, To: Gone, Reason: reason})
	p.enter(w, Gone)
	if holder {
		p.vacate(now, s, urgent)
		p.tellDelay(now, w, s)
	}
	if own && p.running && (!ev.Clean || !w.reached) {
		p.failed(now)
	}
}

// tellDelay tells that an empty slot, in which w was last, has to wait.
func (p *Pool) tellDelay(now Time, w *worker, s *slot) {
	if s.worker == nil && s.due > now {
		p.out = append(p.out, Effect{Kind: Delay, ID: w.id, Slot: s.index, For: s.due - now})
	}
}

// remove takes a worker out of all lists but its slot.
func (p *Pool) remove(w *worker) {
	if w.at >= 0 {
		heap.Remove(&p.deadlines, w.at)
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.oldest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		p.newest = w.prev
	}
	delete(p.workers, w.id)
	if w.waits() {
		p.standby.alive--
		p.unpark(w)
	}
}

// classify says why a worker ended, and whether that was the worker's own doing.
func classify(w *worker, ev Event) (reason Reason, own bool) {
	switch {
	case ev.Memory && w.state < Killed:
		return OutOfMemory, w.state < Stopping
	case w.stuck && (w.state != Stopping):
		return Stuck, true
	case w.state == Killed && ev.Killed:
		return w.killed, w.killed == NeverReady
	case w.state >= Stopping && w.killed == 0 && w.retired:
		return Retired, false
	case w.state >= Stopping && w.killed != NeverReady:
		return Stopped, false
	case ev.Clean:
		return Finished, true
	}
	return Crashed, true
}

// lose notes that a worker let go of its control socket. Nearly always it is about to end, and its end is told a moment
// later. One that lives on without having been ready has replaced itself by another program, or by the same without
// its marker; that would take itself for a manager, so it is killed: at once where the caller knows, also later.
func (p *Pool) lose(now Time, w *worker, lives bool) {
	if lives {
		p.kill(w, NeverReady)
		return
	}
	if w.reached || w.lost || w.state >= Stopping {
		return
	}
	p.endStart(w)
	p.unpark(w)
	w.lost = true
	p.killAt(w, now+lostGrace)
}
