//go:build unix

package pool

import (
	"testing"
	"time"
)

// rolling is a sim of max workers of generation 1, all ready, in which generation 2 has begun to replace them.
func rolling(t *testing.T, max, surge int) *sim {
	s := begun(t, Config{Max: max, Surge: surge, ErrRespawn: sec, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec})
	s.pass(5 * sec)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	return s
}

// gens counts the workers that have not been told to stop, by generation.
func (s *sim) gens() map[int]int {
	n := map[int]int{}
	for _, w := range s.workers {
		if w.state < Stopping {
			n[w.gen]++
		}
	}
	return n
}

// starting are the workers that are not ready, in order of their spawn.
func (s *sim) starting() (ids []int) {
	for _, id := range s.ids() {
		if s.workers[id].state == Starting {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *sim) reach(id int) []Effect { return s.do(Event{Kind: Reached, ID: id}) }

func TestRollReplacesOneAtATime(t *testing.T) {
	s := rolling(t, 3, 1)
	for i := range 3 {
		wantAll(t, "starting", s.starting(), 4+i)
		want(t, "slot of the replacement", s.workers[4+i].slot, i)
		want(t, "ready", s.count(Ready), 3)
		s.pass(2 * sec)
		s.reach(4 + i)
		wantAll(t, "told to stop", s.sent(rollSig), 1+i)
	}
	want(t, "rolls ended", s.done, 1)
	want(t, "ready", s.count(Ready), 3)
	want(t, "stopping", s.count(Stopping), 3)
	s.obey()
	want(t, "spawns", len(s.spawns), 6)
	// The generation is the one that empty slots get from now on.
	s.pass(5 * sec)
	s.crash(4)
	want(t, "generation of the next", s.workers[7].gen, 2)
}

func TestRollWithSurge(t *testing.T) {
	s := rolling(t, 5, 3)
	wantAll(t, "starting", s.starting(), 6, 7, 8)
	s.reach(7)
	wantAll(t, "told to stop", s.sent(rollSig), 2)
	wantAll(t, "starting", s.starting(), 6, 8, 9)
	s.reachAll()
	s.reachAll()
	want(t, "of generation 2", s.gens()[2], 5)
	want(t, "of generation 1", s.gens()[1], 0)
}

func TestRollOfCommands(t *testing.T) {
	s := begun(t, Config{Max: 3, Surge: 1, StopTimeout: sec})
	s.command = true
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	want(t, "of generation 2", s.gens()[2], 3)
	want(t, "rolls ended", s.done, 1)
}

func TestRollKeepsSpawnInterval(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 2, SpawnInterval: sec, StopTimeout: sec})
	s.pass(10 * sec)
	s.reachAll()
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	want(t, "replacements at once", len(s.starting()), 1)
	s.pass(sec)
	want(t, "replacements a second later", len(s.starting()), 2)
}

// What a new generation may do wrong, and that the one before goes on as if nothing had happened.
func TestRollIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*sim)
	}{
		{"exits at once", func(s *sim) { s.leave(4) }},
		{"crashes at once", func(s *sim) { s.crash(4) }},
		{"hangs", func(s *sim) { s.pass(10 * sec); s.exit(4, Event{Killed: true}) }},
		{"lets go of its socket", func(s *sim) { s.do(Event{Kind: Lost, ID: 4}); s.pass(sec); s.exit(4, Event{Killed: true}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rolling(t, 3, 1)
			c.fail(s)
			want(t, "rolls given up", s.gaveUp, 1)
			want(t, "ready of generation 1", s.gens()[1], 3)
			want(t, "spawns", len(s.spawns), 4)
			// A worker that dies now is replaced by its own generation, at once.
			s.pass(sec)
			s.crash(2)
			want(t, "generation of the next", s.workers[5].gen, 1)
			// And the next reload is tried.
			s.reachAll()
			s.do(Event{Kind: Roll, Sig: rollSig})
			s.do(Event{Kind: Begin})
			for range 3 {
				s.reachAll()
			}
			want(t, "of generation 3", s.gens()[3], 3)
			want(t, "rolls ended", s.done, 1)
		})
	}
}

func TestRollIsGivenUpWhereNothingCanBeSpawned(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: sec})
	s.pass(5 * sec)
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.failing = 1
	s.do(Event{Kind: Begin})
	want(t, "rolls given up", s.gaveUp, 1)
	want(t, "of generation 1", s.gens()[1], 2)
	s.crash(1)
	want(t, "generation of the next, at once", s.workers[3].gen, 1)
}

// A generation that fails when part of it serves already is taken back in the way it came.
func TestRollGoesBack(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*sim)
		kept int // of generation 2, until they are replaced
	}{
		{"the next is not ready", func(s *sim) { s.crash(5) }, 1},
		{"the first crashes soon after", func(s *sim) { s.crash(4) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rolling(t, 3, 1)
			s.reach(4)
			want(t, "of generation 2", s.gens()[2], 2)
			c.fail(s)
			want(t, "rolls given up", s.gaveUp, 1)
			want(t, "ready", s.count(Ready), 2+c.kept)
			wantAll(t, "told to stop of those ready", s.sent(rollSig))
			want(t, "starting, of generation 1", s.gens()[1], 3)
			s.reachAll()
			want(t, "of generation 1", s.gens()[1], 3)
			want(t, "of generation 2", s.gens()[2], 0)
		})
	}
}

// Where even the way back fails, what is ready stays.
func TestRollBackIsPaced(t *testing.T) {
	s := rolling(t, 2, 1)
	s.reach(3)
	s.crash(4)
	for range 5 {
		wantAll(t, "starting", s.starting(), len(s.spawns))
		s.crash(len(s.spawns))
		want(t, "ready", s.count(Ready), 2)
		s.pass(100 * ms)
		want(t, "starting in the delay", len(s.starting()), 0)
		for len(s.starting()) == 0 {
			s.pass(500 * ms)
		}
	}
}

func TestRollMovesOn(t *testing.T) {
	s := rolling(t, 3, 1)
	s.reach(4) // slot 0 is of generation 2, slot 1 is under way
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	wantAll(t, "told to stop, being not ready", s.sent(s.cfg.Stop), 5)
	want(t, "generation of the next", s.workers[6].gen, 3)
	for range 3 {
		s.reachAll()
	}
	want(t, "of generation 3", s.gens()[3], 3)
	want(t, "rolls ended", s.done, 1)
	// It would have gone back to generation 1: 2 never came to its end.
	s = rolling(t, 3, 1)
	s.reach(4)
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.crash(6)
	s.reachAll()
	want(t, "of generation 1", s.gens()[1], 3)
}

func TestStopEndsRoll(t *testing.T) {
	s := rolling(t, 3, 1)
	s.reach(4)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	want(t, "stopping", s.count(Stopping), 5)
	s.pass(30 * sec)
	want(t, "killed", s.count(Killed), 5)
	s.obey()
	want(t, "left", s.p.Len(), 0)
}

// Until the new generation has shown that it can be ready, the one before fills what falls empty.
func TestEmptySlotsDuringRoll(t *testing.T) {
	s := rolling(t, 3, 1)
	s.crash(2)
	want(t, "generation of the next", s.workers[5].gen, 1)
	s.reach(4)
	s.pass(sec)
	s.crash(3)
	want(t, "generation of the next, once one was ready", s.workers[len(s.spawns)].gen, 2)
	for range 4 {
		s.reachAll()
	}
	want(t, "of generation 2", s.gens()[2], 3)

	// The worker that is being replaced dies: the replacement has its place when it is ready.
	s = rolling(t, 1, 1)
	s.crash(1)
	want(t, "of generation 1", s.gens()[1], 1)
	s.reach(2)
	want(t, "of generation 1", s.gens()[1], 0)
	want(t, "of generation 2", s.gens()[2], 1)
	want(t, "rolls ended", s.done, 1)
}

// A generation that only crashes is replaced too: there is nobody to wait for.
func TestRollOutOfCrashLoop(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: sec})
	for range 6 {
		for _, id := range s.ids() {
			s.crash(id)
		}
		s.pass(10 * sec)
	}
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	for range 3 {
		s.pass(sec)
		s.reachAll()
	}
	want(t, "of generation 2", s.gens()[2], 2)
	want(t, "rolls ended", s.done, 1)
}

func TestResizeDuringRoll(t *testing.T) {
	s := rolling(t, 4, 1)
	s.reach(5)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "at work", s.count(Starting, Ready), 1)
	s.obey()
	s.do(Event{Kind: Resize, N: 3})
	for range 3 {
		s.reachAll()
	}
	want(t, "of generation 2", s.gens()[2], 3)
	want(t, "rolls ended", s.done, 1)
}

func TestStopIsFollowedByContinue(t *testing.T) {
	s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, Continue: 18})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	wantAll(t, "signals", s.workers[1].got, s.cfg.Stop, 18)
}

// A replacement that cannot even be killed holds up the roll, and no others pile up behind it.
func TestRollWaitsForTheKilled(t *testing.T) {
	s := rolling(t, 2, 1)
	s.pass(time.Hour)
	want(t, "spawns", len(s.spawns), 3)
	want(t, "ready", s.count(Ready), 2)
}

// A generation can still be given up for a second after the last worker was replaced: who crashes at the first request.
func TestRollSettles(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		gaveUp,
		gen int // of the next worker
	}{{50 * ms, 1, 1}, {900 * ms, 1, 1}, {2 * sec, 0, 2}} {
		s := rolling(t, 2, 1)
		s.reachAll()
		s.reachAll()
		want(t, "rolls ended", s.done, 1)
		s.obey()
		s.pass(c.after)
		s.crash(3)
		want(t, "given up", s.gaveUp, c.gaveUp)
		s.pass(5 * sec)
		if w := s.in(0); w == nil || w.gen != c.gen {
			t.Errorf("after %v the slot has %+v, want generation %d", c.after, w, c.gen)
		}
	}
}

// A roll that begins before the one before it has settled goes back to that one.
func TestRollBeforeTheLastSettled(t *testing.T) {
	s := rolling(t, 2, 1)
	s.reachAll()
	s.reachAll()
	want(t, "rolls ended", s.done, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.crash(s.starting()[0])
	want(t, "of generation 2", s.gens()[2], 2)
	want(t, "good", s.p.Good(), 2)
}

// A roll has not come to its end because somebody else has stopped the workers that it was to replace.
func TestRollIsNotEndedByOthers(t *testing.T) {
	s := rolling(t, 4, 1)
	s.reach(5)
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	s.obey()
	want(t, "rolls ended", s.done, 0)
	for range 2 {
		s.crash(s.starting()[0])
	}
	want(t, "rolls given up", s.gaveUp, 1)
	for range 5 {
		s.pass(sec)
		s.reachAll()
	}
	want(t, "of generation 1", s.gens()[1], 4)
}

// When a generation was given up, one that begins without replacing anybody does not get the empty slots: it is made of
// the same configuration. One that is to replace all of them, by whatever signal, does.
func TestGivenUpStaysGivenUp(t *testing.T) {
	s := rolling(t, 2, 1)
	s.crash(3)
	want(t, "rolls given up", s.gaveUp, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin})
	s.pass(5 * sec)
	s.crash(1)
	want(t, "generation of the next", s.in(0).gen, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	s.do(Event{Kind: Begin})
	s.obey()
	want(t, "of the generation after all were stopped", s.gens()[4], 2)
}

// Nor do the workers of the good generation come back where all are stopped one after another, or while what was given up is on its way out.
func TestGivenUpAndStaggered(t *testing.T) {
	for _, staggered := range []bool{true, false} {
		for _, ready := range []bool{false, true} {
			s := rolling(t, 2, 1)
			failed := 3
			if ready { // one of generation 2 is there, and has to be replaced once more
				s.reach(3)
				failed = 4
			}
			s.crash(failed)
			want(t, "rolls given up", s.gaveUp, 1)
			s.do(Event{Kind: Halt})
			if staggered {
				s.do(Event{Kind: Forward, Sig: s.cfg.Stop, For: hup, Interval: sec})
			} else {
				s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
			}
			s.do(Event{Kind: Begin})
			for range 5 {
				s.obey()
				s.pass(sec)
				s.reachAll()
			}
			if got := s.gens(); got[3] != 2 || len(got) != 1 {
				t.Errorf("staggered %v, one was ready %v: workers by generation: %v, want two of 3", staggered, ready, got)
			}
		}
	}
}
