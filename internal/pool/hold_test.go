//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// applyHold: a hold, or the end of one, is the answer to a request and true.
func (s *sim) applyHold(ev Event, e Effect) {
	s.t.Helper()
	ends := ev.Kind == ReleaseSlot || ev.Kind == UnholdSlot
	if e.Held != (ev.Kind == HoldSlot) || !e.Held && !ends || ev.N != e.Slot || s.held[e.Slot] != e.Held {
		s.t.Fatalf("%v: after %+v %+v, held: %t", s.now, ev, e, s.held[e.Slot])
	}
}

// applyDone: a slot is done after the end of its worker, if Restart says so.
func (s *sim) applyDone(ev Event, e Effect) {
	s.t.Helper()
	restarts := s.cfg.Restart == RestartAlways || s.cfg.Restart == RestartOnFailure && !ev.Clean
	if ev.Kind != Exited || ev.ID != e.ID || restarts || s.gone[e.ID] == 0 || s.lastEnded.slot != e.Slot {
		s.t.Fatalf("%v: after %+v %+v", s.now, ev, e)
	}
	if !s.replacing && !s.slots[e.Slot].done {
		s.t.Fatalf("%v: slot %d is done, and should not be", s.now, e.Slot)
	}
}

// closedSlots counts the slots below Max that stay empty, or those of them that
// are done.
func (s *sim) closedSlots(done bool) (n int) {
	for i := range min(s.max, len(s.p.slots)) {
		sl := s.p.slots[i]
		if sl.worker == nil && (sl.done || !done && s.held[i]) {
			n++
		}
	}
	return n
}

// checkClosed: the counters of closed slots are right, and so is what the Pool
// reports of them.
func (s *sim) checkClosed() {
	s.t.Helper()
	c := &s.p.closed
	if empty, done := s.closedSlots(false), s.closedSlots(true); c.empty != empty || c.done != done {
		s.t.Fatalf("%v: %d slots are closed, %d of them done; counted %d and %d", s.now, empty, done, c.empty, c.done)
	}
	if all := s.running && s.max > 0 && c.done == s.max; s.p.AllDone() != all {
		s.t.Fatalf("%v: AllDone %t, want %t", s.now, s.p.AllDone(), all)
	}
	for i, sl := range s.p.slots {
		if sl.done && sl.worker != nil {
			s.t.Fatalf("%v: slot %d is done and has worker %d", s.now, i, sl.worker.id)
		}
		if !s.replacing && sl.done != s.slots[i].done {
			s.t.Fatalf("%v: slot %d is done: %t, want %t", s.now, i, sl.done, s.slots[i].done)
		}
		if i < s.p.Slots() && s.p.Slot(i).Held != s.held[i] {
			s.t.Fatalf("%v: slot %d is held: %t", s.now, i, !s.held[i])
		}
	}
}

func hold(n int) Event    { return Event{Kind: HoldSlot, N: n} }
func release(n int) Event { return Event{Kind: ReleaseSlot, N: n} }
func unhold(n int) Event  { return Event{Kind: UnholdSlot, N: n} }

// kinds returns how often an effect of a kind happened in the last do or pass.
func (s *sim) kinds(kind EffectKind) (n int) {
	for _, e := range s.effects {
		n += count(e.Kind == kind)
	}
	return n
}

// A held slot keeps its worker, and stays empty after its end until the release.
func TestHold(t *testing.T) {
	s := begun(t, usual(2))
	s.do(hold(1))
	want(t, "reports", s.kinds(Hold), 1)
	s.do(hold(1))
	want(t, "reports of a second hold", s.kinds(Hold), 0)
	want(t, "workers", len(s.workers), 2)
	s.crash(2)
	s.pass(time.Minute)
	want(t, "workers after the end", len(s.workers), 1)
	want(t, "settled without the slot", s.p.Settled(), true)
	want(t, "full without it", s.p.Full(), true)
	want(t, "wanted", s.p.Wanted(), 1)
	want(t, "needed", s.p.Needs(1), false)
	want(t, "slot", s.p.Slot(1), Slot{Spawns: 1, Crashes: 1, Due: Never, Held: true})
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin, Fresh: true})
	s.pass(time.Minute)
	want(t, "workers in the next generation", len(s.workers), 1)
	s.do(release(1))
	want(t, "reports of the release", s.kinds(Hold), 1)
	want(t, "workers after the release", len(s.workers), 2)
	s.do(release(1))
	want(t, "reports of a second release", s.kinds(Hold), 0)
	want(t, "workers after it", len(s.workers), 2)
}

// A slot may be held before there is a worker, and before there is such a slot.
func TestHoldBeforeTheFirstWorker(t *testing.T) {
	s := newSim(t, usual(3))
	for _, n := range []int{0, 2, 3, 7} {
		s.do(hold(n))
	}
	s.do(Event{Kind: Begin})
	want(t, "workers", len(s.workers), 1)
	want(t, "its slot", s.workers[1].slot, 1)
	want(t, "slots to show", s.p.Slots(), 3)
	s.do(Event{Kind: Resize, N: 5})
	want(t, "workers of 5", len(s.workers), 2)
	want(t, "the slot of the second", s.workers[2].slot, 4)
	s.readyAll()
	want(t, "settled", s.p.Settled(), true)
	s.do(release(2))
	want(t, "workers after a release", len(s.workers), 3)
	s.do(Event{Kind: Resize, N: 2})
	s.exitStopped()
	s.do(release(3))
	s.do(Event{Kind: Resize, N: 8})
	want(t, "workers of 8, with 0 and 7 held", len(s.workers), 6)
}

// A release starts a worker at once: it ends the delay of the slot, and of failed
// spawns, and starts the backoff again. SpawnInterval remains.
func TestReleaseStartsAtOnce(t *testing.T) {
	s := begun(t, Config{Max: 1, ErrRespawn: sec, Backoff: List{10 * sec, time.Minute}})
	s.crash(1)
	want(t, "workers in the delay", len(s.workers), 0)
	s.do(release(0))
	want(t, "workers after the release", len(s.workers), 1)
	want(t, "reports of a slot that was not held", s.kinds(Hold), 0)
	s.crash(2)
	want(t, "the next delay", s.wake, s.now+10*sec)
	s.pass(10 * sec)
	s.do(release(0)) // with a worker it starts the list again
	s.crash(3)
	want(t, "the delay after that", s.wake, s.now+10*sec)

	s = newSim(t, Config{Max: 1, ErrRespawn: time.Minute, SpawnInterval: 10 * sec})
	s.failing = 1
	s.do(Event{Kind: Begin})
	want(t, "workers after a failed spawn", len(s.workers), 0)
	s.do(release(0))
	want(t, "workers after the release", len(s.workers), 1)
	s.pass(sec)
	s.exitZero(1)
	s.do(release(0))
	want(t, "with SpawnInterval", s.wake, 10*sec)
}

// The end of a hold keeps the delay of the slot, which counts from its last spawn,
// and what leads to the next one.
func TestUnhold(t *testing.T) {
	s := begun(t, Config{Max: 1, ErrRespawn: sec, Backoff: List{10 * sec, time.Minute}, Restart: RestartOnFailure})
	s.crash(1)
	s.do(hold(0))
	s.pass(4 * sec)
	want(t, "due while it is held", s.p.Slot(0).Due, Never)
	s.do(unhold(0))
	want(t, "reports", s.kinds(Hold), 1)
	want(t, "workers in the delay", len(s.workers), 0)
	want(t, "due", s.p.Slot(0).Due, 10*sec)
	s.pass(6 * sec)
	want(t, "workers after the delay", len(s.workers), 1)
	s.do(unhold(0))
	want(t, "reports of a slot that is not held", s.kinds(Hold), 0)
	s.do(hold(0))
	s.do(unhold(0))
	s.pass(sec)
	want(t, "workers of a slot that has one", len(s.workers), 1)
	s.do(hold(0))
	s.crash(2)
	s.pass(2 * time.Minute)
	s.do(unhold(0))
	want(t, "workers, when the delay has passed in the hold", len(s.workers), 1)
	s.exitZero(3)
	s.do(hold(0))
	s.do(unhold(0))
	s.pass(time.Hour)
	want(t, "workers of a slot that is done", len(s.workers), 0)
	s.do(hold(1))
	s.do(unhold(1))
	want(t, "reports of a slot that does not exist", s.kinds(Hold), 1)
}

// A slot is done after an end for which Restart starts no other worker.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name    string
		restart Restart
		before  func(*sim)
		end     Event
		done    bool
	}{
		{"always, clean", RestartAlways, nil, Event{Clean: true}, false},
		{"always, crash", RestartAlways, nil, Event{}, false},
		{"on failure, clean", RestartOnFailure, nil, Event{Clean: true}, true},
		{"on failure, crash", RestartOnFailure, nil, Event{}, false},
		{"on failure, OOM", RestartOnFailure, nil, Event{Killed: true, OOMKilled: true}, false},
		{"never, clean", RestartNever, nil, Event{Clean: true}, true},
		{"never, crash", RestartNever, nil, Event{}, true},
		{"never, killed from outside", RestartNever, nil, Event{Killed: true}, true},
		{"never, OOM", RestartNever, nil, Event{Killed: true, OOMKilled: true}, true},
		{"never, not ready in time", RestartNever, func(s *sim) { s.pass(time.Minute) }, Event{Killed: true}, true},
		{"never, a stray signal at its start", RestartNever, nil, Event{Stray: true}, false},
		{"never, stopped", RestartNever, func(s *sim) { s.do(Event{Kind: Signal, Sig: syscall.SIGTERM}) }, Event{Clean: true}, false},
		{"never, killed", RestartNever, func(s *sim) { s.do(Event{Kind: KillAll}) }, Event{Killed: true}, false},
		{"never, held", RestartNever, func(s *sim) { s.do(hold(0)) }, Event{}, true},
		{"never, between two generations", RestartNever, func(s *sim) { s.do(Event{Kind: Halt}) }, Event{Clean: true}, true},
		{"on failure, of an older generation", RestartOnFailure, func(s *sim) { s.do(Event{Kind: Halt}); s.do(Event{Kind: Begin}) }, Event{Clean: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, Config{Max: 1, ErrRespawn: sec, StopTimeout: sec, ReadyTimeout: time.Minute, Restart: tt.restart, UnprovenLoop: 1})
			s.do(Event{Kind: Begin})
			if tt.before != nil {
				tt.before(s)
			}
			s.exit(1, tt.end)
			want(t, "reports", s.kinds(Done), count(tt.done))
			want(t, "delays", s.kinds(Delay)*count(tt.done), 0)
			s.pass(time.Hour)
			want(t, "done", s.p.Slot(0).Done, tt.done)
			want(t, "failures that are a crash loop", s.crashLoops*count(tt.done), 0)
			s.do(Event{Kind: Begin})
			s.pass(time.Hour)
			want(t, "workers in the next generation", len(s.workers), 1-count(tt.done))
			s.do(Event{Kind: Begin, Fresh: true})
			want(t, "workers in a fresh one", len(s.workers), count(s.p.closed.held[0] == false))
			s.do(release(0))
			want(t, "workers after a release", len(s.workers), 1)
		})
	}
}

// A pool is done when all its slots are.
func TestAllDone(t *testing.T) {
	s := begun(t, Config{Max: 3, ErrRespawn: sec, Restart: RestartOnFailure})
	s.exitZero(1)
	s.exitZero(2)
	want(t, "with one worker", s.p.AllDone(), false)
	want(t, "settled with one worker", s.p.Settled(), true)
	s.do(Event{Kind: Resize, N: 2})
	want(t, "when that is surplus", s.p.AllDone(), true)
	s.do(Event{Kind: Resize, N: 0})
	want(t, "without slots", s.p.AllDone(), false)
	s.do(Event{Kind: Resize, N: 3})
	want(t, "with an unused slot", s.p.AllDone(), false)
	s.exitStopped()
	s.exitZero(s.in(2).id)
	want(t, "after the last end", s.p.AllDone(), true)
	s.do(Event{Kind: Halt})
	want(t, "between generations", s.p.AllDone(), false)
	s.do(Event{Kind: Begin})
	want(t, "in the next one", s.p.AllDone(), true)
	s.do(release(1))
	want(t, "after a release", s.p.AllDone(), false)
	want(t, "its worker", len(s.workers), 1)
	s.do(hold(1))
	s.crash(s.in(1).id)
	want(t, "with a held slot", s.p.AllDone(), false)
}

// A roll replaces the workers that there are, and is complete without those of
// closed slots. One whose slots all close is complete, too.
func TestRollWithClosedSlots(t *testing.T) {
	cfg := Config{Max: 3, Surge: 1, ErrRespawn: sec, StopTimeout: time.Minute, Restart: RestartOnFailure}
	start := func() *sim {
		s := begun(t, cfg)
		s.pass(time.Minute)
		s.exitZero(1)
		s.do(hold(1))
		s.crash(2)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Roll, Sig: rollSig})
		s.do(Event{Kind: Begin})
		return s
	}
	s := start()
	want(t, "workers", len(s.workers), 2)
	s.ready(4)
	want(t, "rolled", s.rolled, 1)
	s.exitStopped()
	want(t, "settled", s.p.Settled(), true)
	s.exitZero(4) // the holder of its slot: a success, and no failure of its generation
	want(t, "failed", s.rollsFailed, 0)
	want(t, "slot 2 is done", s.p.Slot(2).Done, true)

	s = start()
	s.exitZero(3) // its replacement is starting, and remains
	want(t, "slot 2 is not done", s.p.Slot(2).Done, false)
	s.ready(4)
	want(t, "rolled", s.rolled, 1)

	cfg.Max = 1
	s = begun(t, cfg)
	s.pass(time.Minute)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.failing = 0
	s.skipping = true
	s.do(Event{Kind: Begin})
	s.exitZero(1)
	want(t, "rolled without workers", s.rolled, 1)
	want(t, "settled without workers", s.p.Settled(), true)
}

// A standby does not take the slot of a worker whose exit may leave it done.
func TestExitingOfAWorkerThatMayBeDone(t *testing.T) {
	for name, restart := range map[string]Restart{"always": RestartAlways, "on failure": RestartOnFailure, "held": RestartAlways} {
		s := begun(t, Config{Max: 1, Standby: 1, ErrRespawn: sec, StopTimeout: sec, Restart: restart})
		s.pass(time.Minute)
		s.readyAll()
		if name == "held" {
			s.do(hold(0))
		}
		s.do(Event{Kind: Exiting, ID: 1})
		want(t, name+": the slot is given away", s.p.workers[1].exiting, name == "always")
		s.exitZero(1)
		want(t, name+": workers", s.p.Len(), count(name == "always"))
	}
}
