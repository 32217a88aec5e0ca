//go:build unix

package pool

import "testing"

// A Command that puts itself into the background exits at once with code 0. The
// third such end in a row is reported once, delays grow as after crashes, and
// the ends from the third on count for the crash loop.
func TestCommandThatPutsItselfIntoTheBackground(t *testing.T) {
	for _, e := range []Time{sec, -1} {
		cfg := usual(2)
		if e < 0 { // a slot gets its next worker, which is ready, at once
			cfg.Max = 1
		}
		cfg.ErrRespawn, cfg.CrashLoop, cfg.CrashWindow = e, 6, 60*sec
		s := newSim(t, cfg)
		s.command = true
		s.do(Event{Kind: Begin})
		for s.crashLoops == 0 {
			for _, id := range s.ids() {
				if s.crashLoops == 0 {
					s.exitZero(id)
				}
			}
			if len(s.workers) == 0 && s.crashLoops == 0 {
				s.until(s.wake)
			}
		}
		want(t, "reports", s.ended, cfg.Max)
		want(t, "failures", len(s.failures), 6)
		if e > 0 {
			wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 0, 0, 1, 2.6)...)
		}
	}
}

// Workers of this program end by themselves on purpose: their clean ends are no
// failures once they were ready.
func TestCleanEndsOfReadyWorkersAreNoFailures(t *testing.T) {
	s := begun(t, never(2))
	for range 1000 {
		for _, id := range s.ids() {
			s.exitZero(id)
		}
		s.pass(100 * ms)
		s.readyAll()
	}
	want(t, "crash loops", s.crashLoops, 0)
	want(t, "reports", s.ended, 0)
}

// A busy file is tried again after 20, 40, 80 … ms for 2 s, and delays no other
// slot. Then it is a failed spawn like any other.
func TestBusyFile(t *testing.T) {
	p := New(usual(2))
	p.Apply(0, Event{Kind: Begin})
	now, tries := Time(0), []Time{}
	other := 0
	for now < 3*sec {
		step := p.Plan(now)
		switch {
		case step.SpawnDue && step.Slot == 0:
			tries = append(tries, now)
			p.Apply(now, Event{Kind: SpawnFailed, Busy: true})
		case step.SpawnDue:
			want(t, "the other slot is spawned at", now, 0)
			other++
			p.Apply(now, Event{Kind: Spawned})
		case step.Wake == Never:
			t.Fatalf("%v: no wake-up", now)
		default:
			now = step.Wake
			p.Apply(now, Event{})
		}
	}
	want(t, "spawns of the other slot", other, 1)
	wantAll(t, "tries", tries, secs(0, 0.02, 0.06, 0.14, 0.3, 0.62, 1.26, 2)...)
	want(t, "failed spawns", p.spawnFailures, 1)
}

// A roll waits for a busy file, and fails if it stays busy.
func TestRollWaitsForABusyFile(t *testing.T) {
	for _, busy := range []int{3, 100} {
		s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: sec})
		s.pass(10 * sec)
		s.do(Event{Kind: Roll, Sig: rollSig})
		p, failed := s.p, false
		p.Apply(s.now, Event{Kind: Begin})
		now := s.now
		for now < s.now+3*sec && !failed {
			step := p.Plan(now)
			switch {
			case step.SpawnDue && busy > 0:
				busy--
				for _, e := range p.Apply(now, Event{Kind: SpawnFailed, Busy: true}) {
					failed = failed || e.Kind == RollFailed
				}
			case step.SpawnDue:
				want(t, "generation", step.Gen, 2)
				p.Apply(now, Event{Kind: Spawned})
			case step.Wake == Never:
				now = s.now + 3*sec
			default:
				now = step.Wake
				p.Apply(now, Event{})
			}
		}
		want(t, "failed", failed, busy > 0)
	}
}
