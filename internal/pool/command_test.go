//go:build unix

package pool

import (
	"testing"
	"time"
)

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

// lateCommands returns a sim whose commands are not ready at once, unless they
// have lived for after. The workers of generation 1 are ready.
func lateCommands(t *testing.T, max int, after time.Duration) *sim {
	s := newSim(t, Config{Max: max, Surge: 1, ErrRespawn: sec, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec, ReadyAfter: after})
	s.command, s.late = true, true
	s.do(Event{Kind: Begin})
	return s
}

// A command that is ready after a second is ready after a second, and has no
// other deadline.
func TestCommandReadyByAge(t *testing.T) {
	s := lateCommands(t, 2, sec)
	want(t, "starting", s.count(StateStarting), 2)
	want(t, "killed at", s.p.Deadline(1), Never)
	s.pass(sec - 1)
	want(t, "starting just before", s.count(StateStarting), 2)
	s.pass(1)
	want(t, "ready", s.count(StateReady), 2)
	s.pass(time.Minute)
	want(t, "ready for good", s.count(StateReady), 2)

	// One that ends before was not ready.
	s = lateCommands(t, 1, 20*sec)
	s.pass(15 * sec)
	want(t, "killed for the ready timeout", s.count(StateStarting), 1)
	s.exitZero(1)
	want(t, "ready", s.count(StateReady), 0)
}

// The time in which the system was frozen does not count, and a command is not
// ready before the exits up to that time have been read.
func TestCommandReadyByAgeIsNotEarly(t *testing.T) {
	p := New(Config{Max: 1, ReadyAfter: sec})
	p.Apply(0, Event{Kind: Begin})
	p.Plan(0)
	p.Apply(0, Event{Kind: Spawned, Command: true})
	want(t, "due", p.Plan(0).Wake, sec)
	p.Apply(2*sec, Event{Frozen: 2 * sec, ReadUpTo: 2 * sec})
	want(t, "due after a freeze", p.Plan(2*sec).Wake, 3*sec)
	for _, ev := range []Event{{Kind: Signal, Sig: usr1}, {ReadUpTo: 3*sec - 1}} {
		p.Apply(3*sec, ev)
		want(t, "ready by an early event", p.Full(), false)
	}
	p.Apply(3*sec, Event{ReadUpTo: 3 * sec})
	want(t, "ready", p.Full(), true)

	// Nor is a worker of this program ready by its age, and one without its control
	// socket must exit.
	s := lateCommands(t, 1, 50*ms)
	s.do(Event{Kind: Disconnected, ID: 1})
	s.pass(100 * ms)
	want(t, "killed", s.count(StateKilled), 1)
	s = newSim(t, Config{Max: 1, ReadyTimeout: 10 * sec, ReadyAfter: sec})
	s.do(Event{Kind: Begin})
	s.pass(2 * sec)
	want(t, "starting", s.count(StateStarting), 1)
}

// Signals are not held for a command that is not ready: it handles them from its
// start on, or never.
func TestSignalsOfStartingCommands(t *testing.T) {
	for _, after := range []time.Duration{0, sec} {
		s := lateCommands(t, 1, after)
		s.do(Event{Kind: Signal, Sig: usr1})
		s.do(Event{Kind: SignalOne, ID: 1, Sig: hup})
		wantAll(t, "sent", s.workers[1].got, usr1, hup)
		s.do(Event{Kind: Ready, ID: 1})
		wantAll(t, "sent when ready", s.workers[1].got, usr1, hup)
	}
}

// A roll of commands waits for each, and is given up if one ends before it is
// ready or does not become ready in time.
func TestRollWaitsForCommands(t *testing.T) {
	for _, after := range []time.Duration{0, 2 * sec} {
		begin := func() *sim {
			s := lateCommands(t, 2, after)
			s.pass(2 * sec)
			s.readyAll()
			want(t, "ready", s.count(StateReady), 2)
			s.pass(10 * sec)
			s.do(Event{Kind: Halt})
			s.do(Event{Kind: Roll, Sig: rollSig})
			s.do(Event{Kind: Begin})
			return s
		}
		s := begin()
		for i := range 2 {
			wantAll(t, "starting", s.starting(), 3+i)
			s.pass(2*sec - 1)
			want(t, "serving", s.count(StateReady), 2)
			s.pass(1)
			if after == 0 {
				s.ready(3 + i)
			}
			wantAll(t, "stopped", s.sent(rollSig), 1+i)
		}
		want(t, "rolls completed", s.rolled, 1)

		s = begin()
		s.pass(1500 * ms)
		s.crash(3)
		want(t, "rolls given up after a crash", s.rollsFailed, 1)
		want(t, "serving", s.count(StateReady), 2)

		s = begin()
		s.pass(1500 * ms)
		s.exitZero(3)
		want(t, "rolls given up after a clean end", s.rollsFailed, 1)

		if after == 0 {
			s = begin()
			s.pass(10 * sec)
			want(t, "rolls given up after the timeout", s.rollsFailed, 0)
			s.exit(3, Event{Killed: true})
			want(t, "rolls given up after the kill", s.rollsFailed, 1)
			want(t, "serving", s.count(StateReady), 2)
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

// A command behind a first step has its age from its execution on, and until then
// the timeout.
func TestCommandBehindAStep(t *testing.T) {
	begin := func(after time.Duration) *Pool {
		p := New(Config{Max: 1, ErrRespawn: sec, StopTimeout: 30 * sec, ReadyTimeout: 10 * sec, ReadyAfter: after})
		p.Apply(0, Event{Kind: Begin})
		p.Plan(0)
		p.Apply(0, Event{Kind: Spawned, Command: true, Step: true})
		return p
	}
	state := func(p *Pool, now Time, ev Event) State {
		ev.ID, ev.ReadUpTo = 1, now
		for _, e := range p.Apply(now, ev) {
			if e.Kind == Change {
				return e.To
			}
		}
		return StateNone
	}
	p := begin(sec)
	want(t, "at the age in the step", state(p, sec, Event{}), StateNone)
	want(t, "at the execution", state(p, 1500*ms, Event{Kind: Executed}), StateNone)
	want(t, "before the age", state(p, 2500*ms-1, Event{}), StateNone)
	want(t, "at the age", state(p, 2500*ms, Event{}), StateReady)
	want(t, "executed again", state(p, 3*sec, Event{Kind: Executed, Ready: true}), StateNone)
	want(t, "in a step without end", state(begin(sec), 10*sec, Event{}), StateKilled)
	want(t, "ready at once", state(begin(0), sec, Event{Kind: Executed, Ready: true}), StateReady)
	p = begin(0)
	want(t, "not ready at once", state(p, sec, Event{Kind: Executed}), StateNone)
	want(t, "at the timeout", state(p, 10*sec, Event{}), StateKilled)
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
	wantAll(t, "tries", tries, busyTries...)
	want(t, "failed spawns", p.spawnFailures, 1)
}

// busyTries are the times of the spawns of a file that stays busy.
var busyTries = func() []Time {
	tries := secs(0, 0.02, 0.06)
	for at := 140 * ms; at < 2*sec; at += 80 * ms {
		tries = append(tries, at)
	}
	return append(tries, 2*sec)
}()

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
