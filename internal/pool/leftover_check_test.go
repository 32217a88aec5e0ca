//go:build unix

package pool

import (
	"slices"
	"syscall"
	"time"
)

// simLeftover is the process group of a worker that is gone.
type simLeftover struct {
	slot      int
	deadline  Time             // or Never
	checkedAt Time             // or since when it is left over
	empty     bool             // the next check will find it empty
	before    []syscall.Signal // sent to the worker and its group
	got       []syscall.Signal
}

// checkGroup: only signals that stop or kill go to a whole group, and with
// Config.Group they always do.
func (s *sim) checkGroup(ev Event, e Effect) {
	s.t.Helper()
	ends := e.Sig == s.cfg.Stop || e.Sig == syscall.SIGKILL
	stops := ends || e.Sig == rollSig || e.Sig == s.cfg.Continue
	if e.Group && (!s.cfg.Group || !stops) || ends && e.Group != s.cfg.Group {
		s.t.Fatalf("%v: after %+v, %+v", s.now, ev, e)
	}
}

// applyLeftover carries out an effect on the leftover processes of a worker.
// The worker was spawned and is gone, and its group is neither gone nor killed.
func (s *sim) applyLeftover(ev Event, e Effect) {
	s.t.Helper()
	l, spawned := s.leftovers[e.ID], e.ID > 0 && e.ID <= len(s.spawns) && s.spawns[e.ID-1].slot == e.Slot
	if _, gone := s.gone[e.ID]; !gone || !spawned || !s.cfg.Group {
		s.t.Fatalf("%v: %+v concerns the group of a worker that is not gone", s.now, e)
	}
	switch {
	case l == nil:
		s.addLeftover(ev, e)
	case e.Kind == CheckGroup:
		s.applyCheckGroup(l, e)
	case e.Kind == Send:
		s.checkGroup(ev, e)
		if slices.Contains(l.got, e.Sig) {
			s.t.Fatalf("%v: the group of worker %d is sent %v again", s.now, e.ID, e.Sig)
		}
		l.got = append(l.got, e.Sig)
	case e.To == StateKilled:
		s.checkLeftoverKill(ev, l, e)
		delete(s.leftovers, e.ID)
	case e.To == StateGone && ev.Kind == GroupGone && ev.ID == e.ID:
		delete(s.leftovers, e.ID)
	default:
		s.t.Fatalf("%v: after %+v, %+v", s.now, ev, e)
	}
}

// addLeftover: a group is left over when its worker exits, unless the worker
// was killed. Such a group is killed again and forgotten.
func (s *sim) addLeftover(ev Event, e Effect) {
	s.t.Helper()
	added := ev.Kind == Exited && ev.Leftover && ev.ID == e.ID
	killed := added && s.lastEnded.state == StateKilled
	switch {
	case added && e.Kind == Leftover && e.To == StateStopping:
		s.leftovers[e.ID] = &simLeftover{slot: e.Slot, deadline: s.leftoverDeadline(), checkedAt: s.now, before: s.lastEnded.got}
	case killed && e.Kind == Send && e.Sig == syscall.SIGKILL:
		s.checkGroup(ev, e)
	case killed && e.Kind == Leftover && e.From == StateKilled && e.To == StateKilled:
	default:
		s.t.Fatalf("%v: %+v concerns a group that is not left over", s.now, e)
	}
}

func (s *sim) applyCheckGroup(l *simLeftover, e Effect) {
	s.t.Helper()
	if gap := s.now - l.checkedAt; gap < firstCheck {
		s.t.Fatalf("%v: a check of the group of worker %d, %v after the last", s.now, e.ID, gap)
	}
	l.checkedAt = s.now
	if l.empty {
		s.emptyGroups = append(s.emptyGroups, e.ID)
	}
}

func (s *sim) checkLeftoverKill(ev Event, l *simLeftover, e Effect) {
	s.t.Helper()
	requested := ev.Kind == KillAll || ev.Sig == syscall.SIGKILL
	if !slices.Contains(l.got, syscall.SIGKILL) || !s.passed(l.deadline) && !requested {
		s.t.Fatalf("%v: the group of worker %d is killed early, or not at all: %+v", s.now, e.ID, *l)
	}
}

// leftoverDeadline returns when the group of the worker that has just exited
// must be killed. The group got the stop signal with the worker, or gets it
// now.
func (s *sim) leftoverDeadline() Time {
	w, stopped := s.lastEnded, s.now
	if w.stoppedAt != Never {
		stopped = w.stoppedAt
	}
	deadline := Never
	if s.stops() {
		deadline = stopped + s.cfg.StopTimeout
	}
	if w.disconnectedAt != Never && w.stoppedAt != Never {
		deadline = Sooner(deadline, w.disconnectedAt+disconnectGrace)
	}
	if w.stuckAt != Never && w.stoppedAt != Never {
		deadline = Sooner(deadline, w.stuckAt+dumpTime)
	}
	return deadline
}

// checkLeftovers: leftover processes got the stop signal, and are killed in
// time.
func (s *sim) checkLeftovers() {
	s.t.Helper()
	if s.p.Leftovers() != len(s.leftovers) || len(s.p.leftoverOf) != len(s.leftovers) {
		s.t.Fatalf("%v: %d leftovers, want %d", s.now, s.p.Leftovers(), len(s.leftovers))
	}
	for id, l := range s.leftovers {
		if s.passed(l.deadline) {
			s.t.Fatalf("%v: the group of worker %d should have been killed at %v", s.now, id, l.deadline)
		}
		s.checkLeftoverStopped(id, l)
	}
}

func (s *sim) checkLeftoverStopped(id int, l *simLeftover) {
	s.t.Helper()
	got := append(slices.Clone(l.got), l.before...)
	stopped := slices.Contains(got, s.cfg.Stop) || slices.Contains(got, rollSig)
	if !stopped || s.cfg.Continue != 0 && !slices.Contains(got, s.cfg.Continue) {
		s.t.Fatalf("%v: the group of worker %d got no stop signal: %v", s.now, id, got)
	}
}

// checkLeftoverWake: leftover processes are checked at least twice a second,
// and killed in time.
func (s *sim) checkLeftoverWake() {
	s.t.Helper()
	for id, l := range s.leftovers {
		if latest := Sooner(l.deadline, l.checkedAt+500*time.Millisecond); s.wakesAfter(latest) {
			s.t.Fatalf("%v: the group of worker %d is due at %v, but Wake is %v", s.now, id, latest, s.wake)
		}
	}
}
