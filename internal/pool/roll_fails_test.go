//go:build unix

package pool

import (
	"testing"
)

// A new generation fails in many ways. The previous one always continues
// undisturbed.
func TestRollFails(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*sim)
	}{
		{"exits at once", func(s *sim) { s.exitZero(4) }},
		{"crashes at once", func(s *sim) { s.crash(4) }},
		{"hangs", func(s *sim) { s.pass(10 * sec); s.exit(4, Event{Killed: true}) }},
		{"closes its control socket", func(s *sim) { s.do(Event{Kind: Disconnected, ID: 4}); s.pass(sec); s.exit(4, Event{Killed: true}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rolling(t, 3, 1)
			c.fail(s)
			want(t, "rolls failed", s.rollsFailed, 1)
			want(t, "ready of generation 1", s.gens()[1], 3)
			want(t, "spawns", len(s.spawns), 4)
			// A worker that crashes is replaced by its own generation, at once.
			s.pass(sec)
			s.crash(2)
			want(t, "generation of the next worker", s.workers[5].gen, 1)
			// The next reload works.
			s.readyAll()
			s.do(Event{Kind: Roll, Sig: rollSig})
			s.do(Event{Kind: Begin})
			for range 3 {
				s.readyAll()
			}
			want(t, "of generation 3", s.gens()[3], 3)
			want(t, "rolls completed", s.rolled, 1)
		})
	}
}

// A signal that workers ignore once they can ends workers that have just been
// started: it fails neither a generation nor the program, and delays no slot,
// unless it ends too many in a row.
func TestStraySignalBeforeReady(t *testing.T) {
	s := rolling(t, 1, 1)
	for next := 2; next < 2+maxStrays; next++ {
		wantAll(t, "starting", s.starting(), next)
		s.exit(next, Event{Stray: true})
	}
	s.ready(2 + maxStrays)
	want(t, "rolls completed", s.rolled, 1)
	s.do(Event{Kind: Roll, Sig: rollSig}) // it may happen again
	s.do(Event{Kind: Begin})
	for next := 3 + maxStrays; next < 4+2*maxStrays; next++ {
		wantAll(t, "starting", s.starting(), next)
		want(t, "rolls failed", s.rollsFailed, 0)
		s.exit(next, Event{Stray: true})
	}
	want(t, "rolls failed", s.rollsFailed, 1)

	// A worker that was ready can ignore the signal.
	s = rolling(t, 3, 1)
	s.ready(4)
	s.exit(4, Event{Stray: true})
	want(t, "rolls failed", s.rollsFailed, 1)

	s = newSim(t, never(2))
	s.do(Event{Kind: Begin})
	for range maxStrays {
		for _, id := range s.starting() {
			s.exit(id, Event{Stray: true})
		}
		want(t, "starting", len(s.starting()), 2)
	}
	want(t, "crash loops", s.crashLoops, 0)
}

func TestRollFailsWhenASpawnFails(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: sec})
	s.pass(5 * sec)
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.failing = 1
	s.do(Event{Kind: Begin})
	want(t, "rolls failed", s.rollsFailed, 1)
	want(t, "of generation 1", s.gens()[1], 2)
	s.crash(1)
	want(t, "generation of the next worker, at once", s.workers[3].gen, 1)
}

// A generation that fails after some of its workers became ready is rolled
// back.
func TestRollGoesBack(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*sim)
		kept int // workers of generation 2 until they are replaced
	}{
		{"the next is not ready", func(s *sim) { s.crash(5) }, 1},
		{"the first crashes soon after", func(s *sim) { s.crash(4) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rolling(t, 3, 1)
			s.ready(4)
			want(t, "of generation 2", s.gens()[2], 2)
			c.fail(s)
			want(t, "rolls failed", s.rollsFailed, 1)
			want(t, "ready", s.count(StateReady), 2+c.kept)
			wantAll(t, "ready workers stopped", s.sent(rollSig))
			want(t, "starting, of generation 1", s.gens()[1], 3)
			s.readyAll()
			want(t, "of generation 1", s.gens()[1], 3)
			want(t, "of generation 2", s.gens()[2], 0)
		})
	}
}

// If the rollback fails as well, ready workers stay.
func TestRollbackIsDelayed(t *testing.T) {
	s := rolling(t, 2, 1)
	s.ready(3)
	s.crash(4)
	for range 5 {
		wantAll(t, "starting", s.starting(), len(s.spawns))
		s.crash(len(s.spawns))
		want(t, "ready", s.count(StateReady), 2)
		s.pass(100 * ms)
		want(t, "starting during the delay", len(s.starting()), 0)
		for len(s.starting()) == 0 {
			s.pass(500 * ms)
		}
	}
}

// After a generation has failed, the next one does not get the empty slots
// unless it replaces the workers: it runs the same configuration. A generation
// that begins after all workers were stopped, by any signal, does get them.
func TestFailedRollStaysFailed(t *testing.T) {
	s := rolling(t, 2, 1)
	s.crash(3)
	want(t, "rolls failed", s.rollsFailed, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin})
	s.pass(5 * sec)
	s.crash(1)
	want(t, "generation of the next worker", s.in(0).gen, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	s.do(Event{Kind: Begin})
	s.exitStopped()
	want(t, "of the generation after all were stopped", s.gens()[4], 2)
}

// The fallback generation does not come back when all workers are stopped one
// after another, or while the failed generation is being replaced.
func TestStopAfterFailedRoll(t *testing.T) {
	for _, staggered := range []bool{true, false} {
		for _, ready := range []bool{false, true} {
			s := rolling(t, 2, 1)
			failed := 3
			if ready { // a worker of generation 2 must be replaced again
				s.ready(3)
				failed = 4
			}
			s.crash(failed)
			want(t, "rolls failed", s.rollsFailed, 1)
			s.reloadByStop(staggered)
			if got := s.gens(); got[3] != 2 || len(got) != 1 {
				t.Errorf("staggered %v, one was ready %v: workers by generation: %v, want two of 3", staggered, ready, got)
			}
		}
	}
}

// A roll also replaces a generation in a crash loop.
func TestRollOutOfCrashLoop(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: sec})
	for range 6 {
		for _, id := range s.ids() {
			s.crash(id)
		}
		s.pass(10 * sec)
		s.readyAll()
	}
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	for range 3 {
		s.pass(sec)
		s.readyAll()
	}
	want(t, "of generation 2", s.gens()[2], 2)
	want(t, "rolls completed", s.rolled, 1)
}

// reloadByStop stops all workers, begins a generation, and lets time pass.
func (s *sim) reloadByStop(staggered bool) {
	s.t.Helper()
	s.do(Event{Kind: Halt})
	if staggered {
		s.do(Event{Kind: Forward, Sig: s.cfg.Stop, Received: hup, Interval: sec})
	} else {
		s.do(Event{Kind: Signal, Sig: s.cfg.Stop})
	}
	s.do(Event{Kind: Begin})
	for range 5 {
		s.exitStopped()
		s.pass(sec)
		s.readyAll()
	}
}
