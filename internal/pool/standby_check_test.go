//go:build unix

package pool

// checkStandbys: there are never more standbys than Config.Standby, and without
// a running generation and slots they are all stopping. None is parked while a
// slot is due.
func (s *sim) checkStandbys() {
	s.t.Helper()
	n := 0
	for _, w := range s.workers {
		if w.slot == noSlot && w.state < StateStopping {
			n++
			s.checkStandby(w)
		}
	}
	if n > s.cfg.Standby {
		s.t.Fatalf("%v: %d standbys, want %d", s.now, n, s.cfg.Standby)
	}
	parked := s.parked()
	if parked == nil || !s.p.running || s.asked == noSlot || s.p.toReplace.len() > 0 {
		return
	}
	if at, sl := s.p.nextEmpty(s.now); sl != nil && at <= s.now {
		s.t.Fatalf("%v: slot %d is due, and standby %d is parked", s.now, sl.index, parked.id)
	}
}

func (s *sim) checkStandby(w *simWorker) {
	s.t.Helper()
	if !s.running || s.max == 0 {
		s.t.Fatalf("%v: worker %d is a standby, and there are no slots to fill", s.now, w.id)
	}
	if w.gen != s.gen && w.gen != s.p.fallbackGen {
		s.t.Fatalf("%v: standby %d is of generation %d; the newest is %d, the fallback %d", s.now, w.id, w.gen, s.gen, s.p.fallbackGen)
	}
}

// parked returns a standby that could get a slot, or nil.
func (s *sim) parked() *simWorker {
	for _, w := range s.workers {
		if w.state == StateStandby && w.disconnectedAt == Never {
			return w
		}
	}
	return nil
}

// applyPromotion: a standby takes a slot that is empty, or whose worker is
// about to exit, while a generation runs.
func (s *sim) applyPromotion(ev Event, w *simWorker, e Effect) {
	s.t.Helper()
	if exiting := s.workers[ev.ID]; ev.Kind == Exiting && exiting != nil && exiting.slot == e.Slot {
		exiting.exiting = true
	}
	if w.slot != noSlot || !s.running || e.Slot < 0 || e.Slot >= s.max {
		s.t.Fatalf("%v: worker %d in slot %d takes slot %d of %d", s.now, w.id, w.slot, e.Slot, s.max)
	}
	for _, other := range s.workers {
		if other.slot == e.Slot && other.gen == w.gen && s.keepsRunning(other) {
			s.t.Fatalf("%v: standby %d takes slot %d, which has worker %d", s.now, w.id, e.Slot, other.id)
		}
	}
	w.slot, w.spawnedAt, s.spawns[w.id-1].slot = e.Slot, s.now, e.Slot
	sl := s.slots[e.Slot]
	sl.worker, sl.spawnedAt = w.id, s.now
}
