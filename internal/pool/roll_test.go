//go:build unix

package pool

import (
	"testing"
	"time"
)

// rolling returns a sim of max ready workers of generation 1. Generation 2 has
// begun to replace them.
func rolling(t *testing.T, max, surge int) *sim {
	s := begun(t, Config{Max: max, Surge: surge, ErrRespawn: sec, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec})
	s.pass(5 * sec)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	return s
}

// gens counts the workers that are not stopping, by generation.
func (s *sim) gens() map[int]int {
	n := map[int]int{}
	for _, w := range s.workers {
		if w.state < StateStopping {
			n[w.gen]++
		}
	}
	return n
}

// starting returns the starting workers in the order of their spawns.
func (s *sim) starting() (ids []int) {
	for _, id := range s.ids() {
		if s.workers[id].state == StateStarting {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestRollReplacesOneAtATime(t *testing.T) {
	s := rolling(t, 3, 1)
	for i := range 3 {
		wantAll(t, "starting", s.starting(), 4+i)
		want(t, "slot of the replacement", s.workers[4+i].slot, i)
		want(t, "ready", s.count(StateReady), 3)
		s.pass(2 * sec)
		s.ready(4 + i)
		wantAll(t, "stopped", s.sent(rollSig), 1+i)
	}
	want(t, "rolls completed", s.rolled, 1)
	want(t, "ready", s.count(StateReady), 3)
	want(t, "stopping", s.count(StateStopping), 3)
	s.exitStopped()
	want(t, "spawns", len(s.spawns), 6)
	// Empty slots get the new generation from now on.
	s.pass(5 * sec)
	s.crash(4)
	want(t, "generation of the next worker", s.workers[7].gen, 2)
}

func TestRollWithSurge(t *testing.T) {
	s := rolling(t, 5, 3)
	wantAll(t, "starting", s.starting(), 6, 7, 8)
	s.ready(7)
	wantAll(t, "stopped", s.sent(rollSig), 2)
	wantAll(t, "starting", s.starting(), 6, 8, 9)
	s.readyAll()
	s.readyAll()
	want(t, "of generation 2", s.gens()[2], 5)
	want(t, "of generation 1", s.gens()[1], 0)
}

// A slot that is empty when a roll begins gets a probe of the new generation.
// The probe counts like a replacement: at most Surge of them start before one
// was ready.
func TestProbesOfNewGenerationAreBounded(t *testing.T) {
	for _, surge := range []int{1, 2} {
		s := begun(t, Config{Max: 5, Surge: surge, ErrRespawn: sec, StopTimeout: 30 * sec})
		s.pass(5 * sec)
		s.do(Event{Kind: Halt})
		s.exitZero(1)
		s.exitZero(2)
		s.exitZero(3)
		s.do(Event{Kind: Roll, Sig: rollSig})
		s.do(Event{Kind: Begin})
		want(t, "starting of generation 2", s.gens()[2], surge)
		want(t, "generation of slot 0", s.in(0).gen, 2)
		want(t, "workers of generation 1, new ones included", s.gens()[1], 5-surge)
		s.readyAll()
		for range 5 {
			s.readyAll()
		}
		want(t, "of generation 2", s.gens()[2], 5)
		want(t, "rolls completed", s.rolled, 1)
	}
}

func TestRollOfCommands(t *testing.T) {
	s := begun(t, Config{Max: 3, Surge: 1, StopTimeout: sec})
	s.command = true
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	want(t, "of generation 2", s.gens()[2], 3)
	want(t, "rolls completed", s.rolled, 1)
}

func TestRollKeepsSpawnInterval(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 2, SpawnInterval: sec, StopTimeout: sec})
	s.pass(10 * sec)
	s.readyAll()
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	want(t, "replacements at once", len(s.starting()), 1)
	s.pass(sec)
	want(t, "replacements a second later", len(s.starting()), 2)
}

func TestRollContinuesToTheNextGeneration(t *testing.T) {
	s := rolling(t, 3, 1)
	s.ready(4) // slot 0 is of generation 2, the replacement for slot 1 is starting
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	wantAll(t, "starting workers stopped", s.sent(s.cfg.Stop), 5)
	want(t, "generation of the next worker", s.workers[6].gen, 3)
	for range 3 {
		s.readyAll()
	}
	want(t, "of generation 3", s.gens()[3], 3)
	want(t, "rolls completed", s.rolled, 1)
	// A failure would go back to generation 1, since 2 was never complete.
	s = rolling(t, 3, 1)
	s.ready(4)
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.crash(6)
	s.readyAll()
	want(t, "of generation 1", s.gens()[1], 3)
}

func TestStopEndsRoll(t *testing.T) {
	s := rolling(t, 3, 1)
	s.ready(4)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	want(t, "stopping", s.count(StateStopping), 5)
	s.pass(30 * sec)
	want(t, "killed", s.count(StateKilled), 5)
	s.exitStopped()
	want(t, "workers", s.p.Len(), 0)
}

// Until a worker of the new generation was ready, the previous one fills empty
// slots.
func TestEmptySlotsDuringRoll(t *testing.T) {
	s := rolling(t, 3, 1)
	s.crash(2)
	want(t, "generation of the next worker", s.workers[5].gen, 1)
	s.ready(4)
	s.pass(sec)
	s.crash(3)
	want(t, "generation of the next worker after one was ready", s.workers[len(s.spawns)].gen, 2)
	for range 4 {
		s.readyAll()
	}
	want(t, "of generation 2", s.gens()[2], 3)

	// The worker that is being replaced crashes: the replacement gets the slot
	// when it is ready.
	s = rolling(t, 1, 1)
	s.crash(1)
	want(t, "of generation 1", s.gens()[1], 1)
	s.ready(2)
	want(t, "of generation 1", s.gens()[1], 0)
	want(t, "of generation 2", s.gens()[2], 1)
	want(t, "rolls completed", s.rolled, 1)
}

func TestResizeDuringRoll(t *testing.T) {
	s := rolling(t, 4, 1)
	s.ready(5)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "starting or ready", s.count(StateStarting, StateReady), 1)
	s.exitStopped()
	s.do(Event{Kind: Resize, N: 3})
	for range 3 {
		s.readyAll()
	}
	want(t, "of generation 2", s.gens()[2], 3)
	want(t, "rolls completed", s.rolled, 1)
}

func TestStopIsFollowedByContinue(t *testing.T) {
	s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, Continue: 18})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	wantAll(t, "signals", s.workers[1].got, s.cfg.Stop, 18)
}

// A replacement that cannot be killed holds up the roll, and no others are
// spawned behind it.
func TestRollWaitsForKilledReplacement(t *testing.T) {
	s := rolling(t, 2, 1)
	s.pass(time.Hour)
	want(t, "spawns", len(s.spawns), 3)
	want(t, "ready", s.count(StateReady), 2)
}

// A generation can still fail for five seconds after it replaced the last
// worker: its workers may crash at their first requests.
func TestRollSettles(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		failed,
		gen int // of the next worker
	}{{50 * ms, 1, 1}, {900 * ms, 1, 1}, {1500 * ms, 1, 1}, {4900 * ms, 1, 1}, {5 * sec, 0, 2}} {
		s := rolling(t, 2, 1)
		s.readyAll()
		s.readyAll()
		want(t, "rolls completed", s.rolled, 1)
		s.exitStopped()
		s.pass(c.after)
		s.crash(3)
		want(t, "failed", s.rollsFailed, c.failed)
		s.pass(5 * sec)
		if w := s.in(0); w == nil || w.gen != c.gen {
			t.Errorf("after %v the slot has %+v, want generation %d", c.after, w, c.gen)
		}
	}
}

// A roll that begins before the last one has settled falls back to that one.
func TestRollBeforeTheLastSettled(t *testing.T) {
	s := rolling(t, 2, 1)
	s.readyAll()
	s.readyAll()
	want(t, "rolls completed", s.rolled, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.crash(s.starting()[0])
	want(t, "of generation 2", s.gens()[2], 2)
	want(t, "fallback", s.p.Fallback(), 2)
}

// A roll is not complete when a signal has stopped the workers that it
// replaces.
func TestStopDoesNotCompleteRoll(t *testing.T) {
	s := rolling(t, 4, 1)
	s.ready(5)
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	s.exitStopped()
	want(t, "rolls completed", s.rolled, 0)
	for range 2 {
		s.crash(s.starting()[0])
	}
	want(t, "rolls failed", s.rollsFailed, 1)
	for range 5 {
		s.pass(sec)
		s.readyAll()
	}
	want(t, "of generation 1", s.gens()[1], 4)
}

// A replacement that is ready lingers beside the worker of its slot.
func TestRollLingers(t *testing.T) {
	begin := func(max, surge int) *sim {
		s := begun(t, Config{Max: max, Surge: surge, ErrRespawn: sec, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec})
		s.pass(5 * sec)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Roll, Sig: rollSig, Linger: 3 * sec})
		s.do(Event{Kind: Begin})
		return s
	}
	s := begin(2, 1)
	for i := range 2 {
		wantAll(t, "starting", s.starting(), 3+i)
		s.pass(sec)
		s.ready(3 + i)
		s.pass(3*sec - 1)
		want(t, "stopped early", len(s.sent(rollSig)), 0)
		want(t, "ready", s.count(StateReady), 3)
		s.pass(1)
		wantAll(t, "stopped", s.sent(rollSig), 1+i)
	}
	want(t, "rolls completed", s.rolled, 1)

	// The worker ends in that time: its replacement has the slot.
	s = begin(2, 1)
	s.ready(3)
	s.pass(sec)
	s.crash(1)
	wantAll(t, "starting at once", s.starting(), 4)
	s.ready(4)
	s.pass(3 * sec)
	wantAll(t, "stopped", s.sent(rollSig), 2)
	want(t, "rolls completed after an end", s.rolled, 1)

	// The replacement ends, or another one: the roll fails, and the worker
	// goes on.
	for id := 3; id <= 4; id++ {
		s = begin(2, 2)
		s.ready(3)
		s.ready(4)
		s.pass(sec)
		s.crash(id)
		want(t, "rolls given up", s.rollsFailed, 1)
		s.exitStopped()
		s.pass(10 * sec)
		want(t, "workers of generation 1", s.gens()[1], 2)
		want(t, "workers of generation 2", s.gens()[2], 0)
		for _, first := range []int{1, 2} {
			want(t, "state of the first worker", s.workers[first].state, StateReady)
		}
	}

	// A stop of all does not wait for it.
	s = begin(2, 1)
	s.ready(3)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: term})
	s.pass(10 * sec)
	s.exitStopped()
	want(t, "left", len(s.workers), 0)
}

// A generation that was announced while the last worker ended is a roll, too: its
// end is reported, and a failure falls back.
func TestRollWithoutWorkers(t *testing.T) {
	for _, max := range []int{1, 3} {
		for _, fails := range []bool{false, true} {
			s := begun(t, Config{Max: max, Surge: 1, ErrRespawn: -1, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec})
			s.pass(5 * sec)
			s.do(Event{Kind: Halt})
			s.do(Event{Kind: Roll, Sig: rollSig})
			for _, id := range s.ids() {
				s.crash(id)
			}
			s.do(Event{Kind: Begin})
			s.pass(sec)
			if fails {
				s.crash(s.starting()[0])
				want(t, "rolls failed", s.rollsFailed, 1)
			}
			for range max {
				s.readyAll()
				s.pass(sec)
			}
			gen := 2
			if fails {
				gen = 1
			}
			want(t, "rolls completed", s.rolled, gen-1)
			want(t, "ready workers of the generation", s.gens()[gen], max)
		}
	}
}

// The first generation is no roll, though one was announced, nor is one after a
// shutdown that has ended all workers.
func TestRollOfTheFirstGeneration(t *testing.T) {
	s := newSim(t, Config{Max: 2, Surge: 1, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec})
	for gen := 1; gen <= 2; gen++ {
		s.do(Event{Kind: Roll, Sig: rollSig})
		s.do(Event{Kind: Begin, Fresh: gen > 1})
		want(t, "starting", len(s.starting()), 2)
		s.readyAll()
		s.pass(10 * sec)
		want(t, "rolls completed", s.rolled, 0)
		want(t, "ready workers of the generation", s.gens()[gen], 2)
		s.do(Event{Kind: Halt})
		for _, id := range s.ids() {
			s.crash(id)
		}
	}
}
