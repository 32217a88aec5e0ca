//go:build unix

package pool

import (
	"slices"
	"syscall"
)

// rollSig stops the workers that a roll replaces in the tests. It differs from
// the stop signal, so that a test can distinguish the two.
const rollSig = syscall.SIGQUIT

// dumpSig makes a stuck worker dump its stacks.
const dumpSig = syscall.SIGABRT

// checkReplacingSpawn: a spawn is requested only while a generation runs, of
// the newest or the fallback generation. Its slot holds no worker of that
// generation that keeps running.
func (s *sim) checkReplacingSpawn(st Step) {
	s.t.Helper()
	switch {
	case !s.running:
		s.t.Fatalf("%v: a spawn while no generation runs", s.now)
	case st.Slot >= s.max:
		s.t.Fatalf("%v: a spawn in slot %d of %d", s.now, st.Slot, s.max)
	case st.Gen != s.gen && st.Gen != s.p.fallbackGen:
		s.t.Fatalf("%v: a spawn of generation %d; the newest is %d, the fallback %d", s.now, st.Gen, s.gen, s.p.fallbackGen)
	case s.now < s.failedUntil:
		s.t.Fatalf("%v: a spawn after a failed one, not due before %v", s.now, s.failedUntil)
	case st.Ordinal != len(s.spawns)+1:
		s.t.Fatalf("%v: ordinal %d after %d spawns", s.now, st.Ordinal, len(s.spawns))
	}
	if st.Slot == noSlot {
		return
	}
	for _, w := range s.workers {
		if w.slot == st.Slot && w.gen == st.Gen && s.keepsRunning(w) {
			s.t.Fatalf("%v: a spawn in slot %d, which has worker %d of the same generation %d", s.now, w.slot, w.id, w.gen)
		}
	}
}

// keepsRunning reports whether a worker is neither stopping nor to be replaced.
func (s *sim) keepsRunning(w *simWorker) bool {
	return w.state < StateStopping && !w.exiting && !s.p.workers[w.id].recycling
}

// checkStop: a roll stops a worker only when another is ready in its slot.
func (s *sim) checkStop(ev Event, w *simWorker) {
	s.t.Helper()
	if slices.Contains(w.got, rollSig) {
		s.t.Fatalf("%v: worker %d is stopped twice", s.now, w.id)
	}
	if sends(s.effects, w.id, s.cfg.Stop) || s.replacementReady(w) {
		return
	}
	if len(s.effects) > 0 && s.effects[len(s.effects)-1].Sig == rollSig {
		s.t.Fatalf("%v: worker %d is stopped by %+v, and no other is ready in slot %d", s.now, w.id, ev, w.slot)
	}
}

func (s *sim) replacementReady(w *simWorker) bool {
	for _, other := range s.workers {
		if other != w && other.slot == w.slot && other.state == StateReady {
			return true
		}
	}
	return false
}

// applyRoll follows the end of a roll.
func (s *sim) applyRoll(e Effect) {
	s.t.Helper()
	if e.Kind == RollFailed {
		s.rollsFailed++
		if e.Gen <= e.Kept {
			s.t.Fatalf("%v: generation %d failed and %d is kept", s.now, e.Gen, e.Kept)
		}
		return
	}
	s.rolled++
	for _, w := range s.workers {
		if w.state < StateStopping && w.slot < s.max && w.gen < e.Gen && !w.exiting {
			s.t.Fatalf("%v: rolled to generation %d, but worker %d is of %d", s.now, e.Gen, w.id, w.gen)
		}
	}
}

// checkReplacing: the counters and queues of the Pool agree with its workers.
func (s *sim) checkReplacing() {
	s.t.Helper()
	s.checkSize()
	s.checkRoll()
	s.checkProbes()
	for _, sl := range s.p.slots {
		s.checkQueues(sl)
	}
}

// countWorkers counts the workers of the Pool for which f is true, except those
// that are exiting.
func (s *sim) countWorkers(f func(*worker) bool) (n int) {
	for w := s.p.oldest; w != nil; w = w.next {
		if !w.exiting && f(w) {
			n++
		}
	}
	return n
}

func (s *sim) checkSize() {
	s.t.Helper()
	alive := func(w *worker) bool { return w.state < StateStopping && !w.isStandby() }
	idle := func(w *worker) bool { return w.state == StateReady && !w.busy && w.slot.worker == w }
	for _, c := range []struct {
		name    string
		counted int
		is      func(*worker) bool
	}{
		{"alive", s.p.size.alive, alive},
		{"busy", s.p.size.busy, func(w *worker) bool { return alive(w) && w.busy }},
		{"ready", s.p.size.ready, func(w *worker) bool { return w.state == StateReady }},
		{"idle", s.p.size.idle.len(), func(w *worker) bool { return s.p.sizesDynamically() && idle(w) }},
	} {
		if n := s.countWorkers(c.is); n != c.counted {
			s.t.Fatalf("%v: %d workers are %s, counted %d", s.now, n, c.name, c.counted)
		}
	}
}

func (s *sim) checkRoll() {
	s.t.Helper()
	r := &s.p.roll
	for w := s.p.oldest; w != nil; w = w.next {
		if w.state < StateStopping && !w.exiting && w.slot.worker != w && w.slot.replacement != w {
			s.t.Fatalf("%v: worker %d has no slot and is not stopping", s.now, w.id)
		}
	}
	if n := s.countWorkers(func(w *worker) bool { return w.slot.replacement == w }); n != r.surging {
		s.t.Fatalf("%v: %d replacements, counted %d", s.now, n, r.surging)
	}
	if n := s.countWorkers(func(w *worker) bool { return w.probe }); n != r.probes {
		s.t.Fatalf("%v: %d probes, counted %d", s.now, n, r.probes)
	}
	holders := s.countWorkers(func(w *worker) bool {
		return w.gen >= r.rollGen && w.state == StateReady && w.slot.worker == w
	})
	if r.direction == forward && holders != r.rolled {
		s.t.Fatalf("%v: %d slots are rolled, counted %d", s.now, holders, r.rolled)
	}
}

// checkProbes: before a worker of the new generation was ready, at most Surge
// of its workers start.
func (s *sim) checkProbes() {
	s.t.Helper()
	r := &s.p.roll
	if r.direction != forward || r.proven {
		return
	}
	n := 0
	for _, w := range s.workers {
		if w.gen >= r.rollGen && w.state <= StateStandby {
			n++
		}
	}
	if n > s.cfg.Surge {
		s.t.Fatalf("%v: %d workers of the unproven generation %d start, at most %d may", s.now, n, r.rollGen, s.cfg.Surge)
	}
}

// checkQueues: a slot is queued exactly if it needs a worker or a replacement.
func (s *sim) checkQueues(sl *slot) {
	s.t.Helper()
	p := s.p
	next := sl.replacement
	lingers := next != nil && next.state == StateReady && slices.Contains(p.roll.lingering, next) && next.lingersUntil > s.now
	if next != nil && !lingers && (next.state != StateStarting && next.state != StateKilled || next == sl.worker) {
		s.t.Fatalf("%v: the replacement in slot %d is in state %d", s.now, sl.index, next.state)
	}
	inUse := sl.index < p.max
	empty := inUse && sl.worker == nil && !sl.done && !s.held[sl.index]
	if got := sl.queue == &p.vacant || sl.queue == &p.urgent; got != empty {
		s.t.Fatalf("%v: slot %d is queued for a worker: %v, want %v", s.now, sl.index, got, empty)
	}
	stale := inUse && sl.worker != nil && sl.worker.state < StateStopping && sl.replacement == nil && p.mustReplace(sl.worker)
	if got := sl.queue == &p.toReplace; got != stale {
		s.t.Fatalf("%v: slot %d is queued for a replacement: %v, want %v (roll %+v)", s.now, sl.index, got, stale, p.roll)
	}
}
