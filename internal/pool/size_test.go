//go:build unix

package pool

import (
	"testing"
	"time"
)

func (s *sim) allBusy(busy bool) {
	s.t.Helper()
	for _, id := range s.ids() {
		kind := Idle
		if busy {
			kind = Busy
		}
		s.do(Event{Kind: kind, ID: id})
	}
}

// T3, the original's 03-spareworkers.t, without its waiting: 3 workers, all busy makes 10, all idle leaves 5.
func TestOriginal03(t *testing.T) {
	s := begun(t, Config{Max: 10, MinSpare: 3, MaxSpare: 5, StopTimeout: sec})
	want(t, "workers", s.count(Ready), 3)
	for range 5 {
		s.allBusy(true)
		s.reachAll()
	}
	want(t, "workers, all busy", s.count(Ready), 10)
	s.allBusy(false)
	s.obey()
	want(t, "workers, all idle", s.count(Ready), 5)
	wantAll(t, "those left", s.ids(), 1, 2, 3, 4, 5)
	// The next burst.
	s.allBusy(true)
	want(t, "workers and those that start", s.count(Ready, Starting), 8)
}

// D10: no busy worker is stopped, and one that the load does not need is, be it told by a table or not.
func TestOnlyIdleWorkersAreStopped(t *testing.T) {
	s := begun(t, Config{Max: 6, MinSpare: 1, MaxSpare: 2, SpawnInterval: sec, StopTimeout: time.Minute})
	for range 6 {
		s.allBusy(true)
		s.pass(sec)
		s.reachAll()
	}
	want(t, "workers", s.count(Ready), 6)
	for _, id := range []int{2, 3, 5} {
		s.do(Event{Kind: Idle, ID: id})
	}
	wantAll(t, "told to stop", s.sent(s.cfg.Stop), 5)
	s.do(Event{Kind: Idle, ID: 6})
	wantAll(t, "told to stop within SpawnInterval", s.sent(s.cfg.Stop))
	s.pass(sec)
	wantAll(t, "told to stop after it", s.sent(s.cfg.Stop), 6)
	s.pass(10 * sec)
	want(t, "ready", s.count(Ready), 4)
}

// Sizing and a raised maximum; and a worker that crashes while enough are idle is not replaced.
func TestSizingAndMax(t *testing.T) {
	s := begun(t, Config{Max: 2, MinSpare: 2, MaxSpare: 4, StopTimeout: sec})
	s.allBusy(true)
	want(t, "workers", s.count(Ready, Starting), 2)
	s.do(Event{Kind: Resize, N: 10})
	s.reachAll()
	want(t, "workers after Resize", s.count(Ready), 4)
	s.allBusy(false)
	s.pass(10 * sec)
	s.crash(1)
	want(t, "workers after a crash", s.count(Ready, Starting), 3)
}

// A worker retires when its replacement is ready, at most Surge at a time.
func TestRetire(t *testing.T) {
	s := begun(t, Config{Max: 3, Surge: 1, StopTimeout: sec, ErrRespawn: sec})
	s.pass(5 * sec)
	for _, id := range []int{1, 2, 2} {
		s.do(Event{Kind: Retire, ID: id})
	}
	wantAll(t, "replacements", s.starting(), 4)
	wantAll(t, "told to stop", s.sent(s.cfg.Stop))
	s.reach(4)
	wantAll(t, "told to stop", s.sent(s.cfg.Stop), 1)
	wantAll(t, "replacements", s.starting(), 5)
	want(t, "generation of the replacement", s.workers[5].gen, 1)
	s.leave(1)
	want(t, "reason", s.gone[1], Retired)
	s.crash(5) // the replacement fails: the worker goes on, and another is tried when the slot's pace allows
	want(t, "ready", s.count(Ready), 3)
	s.pass(sec)
	s.reachAll()
	s.obey()
	want(t, "ready", s.count(Ready), 3)
	want(t, "reason", s.gone[2], Retired)
}

func TestLifetime(t *testing.T) {
	s := newSim(t, Config{Max: 2, Surge: 1, StopTimeout: sec, Lifetime: time.Hour, Jitter: func() float64 { return 0.5 }})
	s.do(Event{Kind: Begin})
	s.reachAll()
	s.pass(53 * time.Minute)
	want(t, "replacements before 54 minutes", len(s.starting()), 0)
	s.pass(2 * time.Minute)
	want(t, "replacements after", len(s.starting()), 1)
}

// A stuck worker is asked where it is, killed half a second later, and counts as one that ended badly.
func TestStuck(t *testing.T) {
	for _, dumps := range []bool{true, false} {
		s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, Dump: dumpSig})
		s.pass(time.Minute)
		s.do(Event{Kind: Jam, ID: 1})
		wantAll(t, "asked", s.sent(dumpSig), 1)
		if dumps {
			s.crash(1)
		} else {
			s.pass(500 * ms)
			want(t, "killed", s.workers[1].state, Killed)
			s.exit(1, Event{Killed: true})
		}
		want(t, "reason", s.gone[1], Stuck)
		want(t, "replaced", len(s.spawns), 2)
	}
}

// The manager gives up after so many failures, unless a worker is ready.
func TestCrashLoop(t *testing.T) {
	s := newSim(t, Config{Max: 2, Surge: 1, ErrRespawn: -1, CrashLoop: 5, CrashWindow: 10 * sec})
	s.do(Event{Kind: Begin})
	s.reach(1)
	for range 10 {
		s.crash(len(s.spawns))
	}
	want(t, "given up while one is ready", s.surrendered, 0)
	s.crash(1)
	want(t, "given up", s.surrendered, 1)
	s.crash(len(s.spawns))
	want(t, "given up only once", s.surrendered, 1)

	s = newSim(t, Config{Max: 1, Surge: 1, ErrRespawn: -1, CrashLoop: 5, CrashWindow: 10 * sec})
	s.do(Event{Kind: Begin})
	for range 20 {
		s.crash(len(s.spawns))
		s.pass(3 * sec)
	}
	want(t, "given up at a failure each 3 s", s.surrendered, 0)
}

// Full is when nobody is missing and nobody starting: with sizing by load that is not Max.
func TestFull(t *testing.T) {
	s := begun(t, Config{Max: 10, MinSpare: 2, MaxSpare: 4, StopTimeout: sec})
	want(t, "full, with two idle", s.p.Full(), true)
	s.do(Event{Kind: Busy, ID: 1})
	want(t, "full, while one starts", s.p.Full(), false)
	s.reachAll()
	want(t, "full, with one busy", s.p.Full(), true)
	s.pass(2 * sec)
	s.crash(2)
	want(t, "full, after a crash", s.p.Full(), false)
	s = begun(t, Config{Max: 10, MinSpare: 1, MaxSpare: 4, StopTimeout: sec, ReadyTimeout: sec})
	s.do(Event{Kind: Busy, ID: 1})
	s.do(Event{Kind: Idle, ID: 1})
	s.pass(sec)
	want(t, "full, while one that was not ready has not ended", s.p.Full(), false)
	s.obey()
	want(t, "full, when it has", s.p.Full(), true)
	s.do(Event{Kind: Halt})
	want(t, "full, at the end", s.p.Full(), false)
	s = newSim(t, Config{Max: 2, StopTimeout: sec})
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Reached, ID: 2})
	want(t, "full, with one of two", s.p.Full(), false)
	s.reachAll()
	want(t, "full", s.p.Full(), true)
}
