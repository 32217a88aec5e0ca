//go:build unix

package pool

import (
	"slices"
	"syscall"
	"time"
)

// simRest is what a worker that is gone has left of its process group.
type simRest struct {
	slot     int
	deadline Time             // Never if it may take for ever
	lookedAt Time             // or since when it is there
	gone     bool             // which nobody knows before he looks
	before   []syscall.Signal // what the worker got, with its group
	got      []syscall.Signal
}

// checkGroup: to a whole group go only the signals that stop and kill, and they always do where that is asked for.
func (s *sim) checkGroup(ev Event, e Effect) {
	s.t.Helper()
	ends := e.Sig == s.cfg.Stop || e.Sig == syscall.SIGKILL
	told := ends || e.Sig == rollSig || e.Sig == s.cfg.Continue
	if e.Group && (!s.cfg.Group || !told) || ends && e.Group != s.cfg.Group {
		s.t.Fatalf("%v: after %+v, %+v", s.now, ev, e)
	}
}

// applyRest does what one effect says of what is left of a group: that of a worker which was spawned and is gone, until it is
// gone or killed itself.
func (s *sim) applyRest(ev Event, e Effect) {
	s.t.Helper()
	r, spawned := s.rests[e.ID], e.ID > 0 && e.ID <= len(s.spawns) && s.spawns[e.ID-1].slot == e.Slot
	if _, gone := s.gone[e.ID]; !gone || !spawned || !s.cfg.Group {
		s.t.Fatalf("%v: %+v is about what is left of a worker that is not gone", s.now, e)
	}
	begins := ev.Kind == Exited && ev.Rest && ev.ID == e.ID
	switch {
	case e.Kind == Rest && e.To == Stopping && r == nil && begins:
		s.rests[e.ID] = &simRest{slot: e.Slot, deadline: s.restDeadline(), lookedAt: s.now, before: s.ended.got}
	case r == nil && begins && s.ended.state == Killed && e.Kind == Send && e.Sig == syscall.SIGKILL:
		s.checkGroup(ev, e)
	case r == nil && begins && s.ended.state == Killed && e.Kind == Rest && e.From == Killed && e.To == Killed:
	case r == nil:
		s.t.Fatalf("%v: %+v is about what is not left", s.now, e)
	case e.Kind == Look:
		if gap := s.now - r.lookedAt; gap < firstLook {
			s.t.Fatalf("%v: a look at the group of worker %d, %v after the last", s.now, e.ID, gap)
		}
		r.lookedAt = s.now
		if r.gone {
			s.empty = append(s.empty, e.ID)
		}
	case e.Kind == Send:
		s.checkGroup(ev, e)
		if slices.Contains(r.got, e.Sig) {
			s.t.Fatalf("%v: what is left of worker %d is sent %v again", s.now, e.ID, e.Sig)
		}
		r.got = append(r.got, e.Sig)
	case e.To == Killed:
		late := r.deadline != Never && s.now >= r.deadline
		byHand := ev.Kind == KillAll || ev.Sig == syscall.SIGKILL
		if !slices.Contains(r.got, syscall.SIGKILL) || !late && !byHand {
			s.t.Fatalf("%v: what is left of worker %d is killed early, or not at all: %+v", s.now, e.ID, *r)
		}
		delete(s.rests, e.ID)
	case e.To == Gone && ev.Kind == Emptied && ev.ID == e.ID:
		delete(s.rests, e.ID)
	default:
		s.t.Fatalf("%v: after %+v, %+v", s.now, ev, e)
	}
}

// restDeadline is when what is left of the worker that has just ended must be killed: it was told to stop with the worker, or
// is told now.
func (s *sim) restDeadline() Time {
	w, told := s.ended, s.now
	if w.toldAt != Never {
		told = w.toldAt
	}
	deadline := Never
	if s.stops() {
		deadline = told + s.cfg.StopTimeout
	}
	if w.lostAt != Never && w.toldAt != Never {
		deadline = Sooner(deadline, w.lostAt+lostGrace)
	}
	if w.jammedAt != Never && w.toldAt != Never {
		deadline = Sooner(deadline, w.jammedAt+dumpTime)
	}
	return deadline
}

// checkRests: what is left has been told to stop, and is killed in time.
func (s *sim) checkRests() {
	s.t.Helper()
	if s.p.Rests() != len(s.rests) || len(s.p.left) != len(s.rests) {
		s.t.Fatalf("%v: %d rests, want %d", s.now, s.p.Rests(), len(s.rests))
	}
	for id, r := range s.rests {
		if r.deadline != Never && s.now >= r.deadline {
			s.t.Fatalf("%v: what is left of worker %d should have been killed at %v", s.now, id, r.deadline)
		}
		heard := append(slices.Clone(r.got), r.before...)
		stop := slices.Contains(heard, s.cfg.Stop) || slices.Contains(heard, rollSig)
		if !stop || s.cfg.Continue != 0 && !slices.Contains(heard, s.cfg.Continue) {
			s.t.Fatalf("%v: what is left of worker %d was not told to stop: %v", s.now, id, heard)
		}
	}
}

// checkRestWake: where something is left, somebody looks at least twice a second, and it is killed in time.
func (s *sim) checkRestWake() {
	s.t.Helper()
	for id, r := range s.rests {
		latest := Sooner(r.deadline, r.lookedAt+500*time.Millisecond)
		if s.wake == Never || s.wake > latest {
			s.t.Fatalf("%v: something is left of worker %d, next due at %v, but Wake is %v", s.now, id, latest, s.wake)
		}
	}
}
