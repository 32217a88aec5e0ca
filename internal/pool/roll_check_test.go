//go:build unix

package pool

import (
	"slices"
	"syscall"
)

// rollSig is the signal by which the tests have replaced workers told to stop: another than the stop signal, so that the
// two can be told apart.
const rollSig = syscall.SIGQUIT

// dumpSig is the one by which a stuck worker is asked where it is.
const dumpSig = syscall.SIGABRT

// checkRollingSpawn: a spawn is asked for only while a generation runs, of the newest generation or the good one, and in
// a slot with no worker at work but one of another generation.
func (s *sim) checkRollingSpawn(st Step) {
	s.t.Helper()
	switch {
	case !s.running:
		s.t.Fatalf("%v: a spawn while no generation runs", s.now)
	case st.Spawn >= s.max:
		s.t.Fatalf("%v: a spawn in slot %d of %d", s.now, st.Spawn, s.max)
	case st.Gen != s.gen && st.Gen != s.p.good:
		s.t.Fatalf("%v: a spawn of generation %d; the newest is %d, the good one %d", s.now, st.Gen, s.gen, s.p.good)
	case s.now < s.failedTil:
		s.t.Fatalf("%v: a spawn, but the last one failed, wait until %v", s.now, s.failedTil)
	case st.Ordinal != len(s.spawns)+1:
		s.t.Fatalf("%v: ordinal %d after %d spawns", s.now, st.Ordinal, len(s.spawns))
	}
	if st.Spawn == noSlot {
		return
	}
	for _, w := range s.workers {
		if w.slot == st.Spawn && w.state < Stopping && !w.yielded && w.gen == st.Gen && !s.p.workers[w.id].retiring {
			s.t.Fatalf("%v: a spawn in slot %d, where worker %d of the same generation %d is", s.now, w.slot, w.id, w.gen)
		}
	}
}

// checkTold: a roll tells a worker to stop only when another is ready in its slot.
func (s *sim) checkTold(ev Event, w *simWorker) {
	s.t.Helper()
	if w.got != nil && slices.Contains(w.got, rollSig) {
		s.t.Fatalf("%v: worker %d is told twice", s.now, w.id)
	}
	for _, e := range s.effects {
		if e.ID == w.id && e.Kind == Send && e.Sig == s.cfg.Stop {
			return
		}
	}
	for _, other := range s.workers {
		if other != w && other.slot == w.slot && other.state == Ready {
			return
		}
	}
	if len(s.effects) > 0 && s.effects[len(s.effects)-1].Sig == rollSig {
		s.t.Fatalf("%v: worker %d is told to stop by %+v, and nobody is ready in slot %d", s.now, w.id, ev, w.slot)
	}
}

// rolled follows the end of a roll.
func (s *sim) rolled(e Effect) {
	s.t.Helper()
	if e.Kind == GaveUp {
		s.gaveUp++
		if e.Gen <= e.Back {
			s.t.Fatalf("%v: generation %d is given up for %d", s.now, e.Gen, e.Back)
		}
		return
	}
	s.done++
	for _, w := range s.workers {
		if w.state < Stopping && w.slot < s.max && w.gen < e.Gen && !w.yielded {
			s.t.Fatalf("%v: rolled to generation %d, but worker %d is of %d", s.now, e.Gen, w.id, w.gen)
		}
	}
}

// checkRolls: what the Pool keeps of slots and replacements agrees with the workers that there are.
func (s *sim) checkRolls() {
	s.t.Helper()
	p := s.p
	surging, probes := 0, 0
	var alive, busy, ready, idle int
	for w := p.oldest; w != nil; w = w.next {
		if w.yielded {
			continue
		}
		if w.state < Stopping && !w.waits() {
			alive++
			if w.busy {
				busy++
			}
		}
		if w.state == Ready {
			ready++
			if !w.busy && w.slot.worker == w {
				idle++
			}
		}
		if w.probe {
			probes++
		}
		if w.state < Stopping && w.slot.worker != w && w.slot.next != w {
			s.t.Fatalf("%v: worker %d has no place and was not told to stop", s.now, w.id)
		}
	}
	for _, sl := range p.slots {
		if sl.next != nil {
			surging++
			if sl.next.state != Starting && sl.next.state != Killed || sl.next == sl.worker {
				s.t.Fatalf("%v: the replacement in slot %d is in state %d", s.now, sl.index, sl.next.state)
			}
		}
		in := sl.index < p.max
		waits := in && sl.worker == nil
		rolls := in && sl.worker != nil && sl.worker.state < Stopping && sl.next == nil && p.stale(sl.worker)
		if got := sl.heap == &p.vacant || sl.heap == &p.urgent; got != waits {
			s.t.Fatalf("%v: slot %d waits for a worker: %v, want %v", s.now, sl.index, got, waits)
		}
		if got := sl.heap == &p.rolls; got != rolls {
			s.t.Fatalf("%v: slot %d waits for a replacement: %v, want %v (roll %+v)", s.now, sl.index, got, rolls, p.roll)
		}
	}
	if !p.adapts() {
		idle = 0 // nobody asks for them
	}
	if z := p.size; alive != z.alive || busy != z.busy || ready != z.ready || idle != len(z.idle) {
		s.t.Fatalf("%v: %d alive, %d busy, %d ready, %d idle; counted %d, %d, %d, %d", s.now, alive, busy, ready, idle, z.alive, z.busy, z.ready, len(z.idle))
	}
	if surging != p.roll.surging || probes != p.roll.probes {
		s.t.Fatalf("%v: %d replacements and %d probes, counted %d and %d", s.now, surging, probes, p.roll.surging, p.roll.probes)
	}
}
