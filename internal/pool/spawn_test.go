//go:build unix

package pool

import (
	"math"
	"syscall"
	"testing"
	"time"
)

// usual returns the configuration of a program that sets nothing except Max.
func usual(slots int) Config {
	return Config{Max: slots, ErrRespawn: sec, StopTimeout: 30 * sec}
}

func TestInitialBurstSpawnsInOrderOfSlot(t *testing.T) {
	s := newSim(t, usual(5))
	s.do(Event{})
	want(t, "workers before Begin", len(s.workers), 0)
	s.do(Event{Kind: Begin})
	want(t, "workers", s.count(StateStarting), 5)
	for i, sp := range s.spawns {
		want(t, "spawn", sp, simSpawn{at: 0, slot: i, id: i + 1})
	}
	want(t, "Wake", s.wake, Never)
}

func TestT4SpawnIntervalSpacesTheInitialBurst(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = sec
	s := begun(t, cfg)
	var alive []int
	for _, at := range secs(0.5, 1.5, 2.5, 3.5) {
		s.until(at)
		alive = append(alive, len(s.workers))
	}
	wantAll(t, "workers at 0.5, 1.5, 2.5, 3.5 s", alive, 1, 2, 3, 3)
}

func TestP18SpawnIntervalDelaysRespawnAfterCleanEnd(t *testing.T) {
	cfg := usual(2)
	cfg.SpawnInterval = 5 * sec
	s := begun(t, cfg)
	s.until(7 * sec)
	s.exitZero(1) // the last spawn was at 5 s
	s.until(20 * sec)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 10)...)
}

func TestP17SpawnIntervalDoesNotDelayRespawnAfterCrash(t *testing.T) {
	cfg := usual(2)
	cfg.SpawnInterval = 5 * sec
	s := begun(t, cfg)
	s.until(7 * sec)
	s.crash(1)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 7)...)
}

func TestD4CrashesOfOneSlotDoNotStarveOthers(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = 2 * sec
	s := begun(t, cfg)
	// The lives are not young, so each worker is replaced at once, sooner than
	// SpawnInterval after the last spawn.
	for range 10 {
		s.pass(1500 * ms)
		s.readyAll()
		s.crash(s.in(0).id)
	}
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), 2*sec)
	wantAll(t, "spawns in slot 2", s.spawnTimes(2), 4*sec)
}

func TestNoWorkersAtAll(t *testing.T) {
	s := begun(t, usual(0))
	s.pass(time.Hour)
	want(t, "spawns", len(s.spawns), 0)
	want(t, "Wake", s.wake, Never)
}

func TestNothingIsSpawnedAfterHalt(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = sec
	s := begun(t, cfg)
	s.do(Event{Kind: Halt})
	want(t, "Wake", s.wake, Never)
	s.crash(1)
	s.pass(time.Hour)
	want(t, "spawns", len(s.spawns), 1)
	s.do(Event{Kind: Begin})
	s.pass(2 * sec)
	want(t, "spawns when a generation runs again", len(s.spawns), 4)
}

func TestSpawnRequestIsRepeated(t *testing.T) {
	s := newSim(t, usual(1))
	s.skipping = true
	s.do(Event{Kind: Begin})
	want(t, "spawns", len(s.spawns), 0)
	s.pass(sec)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), sec)
}

func TestSpawnedPanicsWithoutRequest(t *testing.T) {
	p := New(usual(1))
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	p.Apply(0, Event{Kind: Spawned})
}

func TestFailedSpawnsGrowOneDelayAndUseNoOrdinal(t *testing.T) {
	s := newSim(t, usual(3))
	s.failing = 9
	s.do(Event{Kind: Begin})
	s.pass(5 * time.Minute)
	wantAll(t, "attempts that failed", s.failed, secs(0, 1, 3, 7, 15, 31, 63, 123, 183)...)
	for i, sp := range s.spawns {
		want(t, "spawn after them", sp, simSpawn{at: 243 * sec, slot: i, id: i + 1})
	}
	// The successful spawns have reset the delay.
	s.failed, s.failing = nil, 2
	s.exitZero(2)
	s.pass(10 * sec)
	wantAll(t, "attempts that failed later", s.failed, secs(300, 301)...)
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), secs(243, 303)...)
	want(t, "ordinal of the last", s.in(1).id, 4)
}

func TestFailedSpawnsWithoutBackoffDoNotSpin(t *testing.T) {
	for _, e := range []time.Duration{-1, 0} {
		cfg := usual(2)
		cfg.ErrRespawn = e
		s := newSim(t, cfg)
		s.failing = 7
		s.do(Event{Kind: Begin})
		s.pass(time.Minute)
		wantAll(t, "attempts that failed", s.failed, secs(0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5)...)
	}
}

func TestGreatestDurationsMeanNever(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	t.Run("StopTimeout", func(t *testing.T) {
		s := newSim(t, Config{Max: 1, ErrRespawn: sec, StopTimeout: forever})
		s.now = time.Minute
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Signal, Sig: syscall.SIGTERM})
		s.pass(1000 * time.Hour)
		want(t, "stopping", s.count(StateStopping), 1)
	})
	t.Run("ErrRespawn", func(t *testing.T) {
		for _, jitter := range []float64{0, 0.999} {
			p := New(Config{Max: 1, ErrRespawn: forever, Jitter: func() float64 { return jitter }})
			p.Apply(sec, Event{Kind: Begin})
			p.Plan(sec)
			p.Apply(sec, Event{Kind: Spawned})
			for _, ev := range []Event{{Kind: Exited, ID: 1}, {Kind: Begin}} {
				p.Apply(2*sec, ev)
				want(t, "spawn due", p.Plan(2*sec).SpawnDue, false)
			}
		}
	})
	t.Run("SpawnInterval", func(t *testing.T) {
		p := New(Config{Max: 2, ErrRespawn: sec, SpawnInterval: forever})
		p.Apply(sec, Event{Kind: Begin})
		p.Plan(sec)
		p.Apply(sec, Event{Kind: Spawned})
		want(t, "second spawn due", p.Plan(sec).SpawnDue, false)
	})
	t.Run("SpawnFailed", func(t *testing.T) {
		p := New(Config{Max: 1, ErrRespawn: forever})
		p.Apply(sec, Event{Kind: Begin})
		p.Apply(sec, Event{Kind: SpawnFailed})
		want(t, "spawn due", p.Plan(sec).SpawnDue, false)
	})
	t.Run("Interval", func(t *testing.T) {
		s := newSim(t, usual(3))
		s.now = sec
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Forward, Sig: syscall.SIGTERM, Received: syscall.SIGHUP, Interval: forever})
		want(t, "stopping", s.count(StateStopping), 1)
	})
}

func TestRetryDelayOfFailedSpawns(t *testing.T) {
	p := New(usual(2))
	p.Apply(0, Event{Kind: Begin})
	for _, d := range secs(1, 2, 4) {
		wantAll(t, "effects", p.Apply(0, Event{Kind: SpawnFailed}), Effect{Kind: RetryDelay, For: d})
	}
	p.Apply(3*sec, Event{})
	want(t, "spawn due a little later", p.Plan(3*sec).SpawnDue, false)
	want(t, "Wake a little later", p.Plan(3*sec).Wake, 4*sec)
	p.Apply(10*sec, Event{})
	want(t, "spawn due after the delay", p.Plan(10*sec).SpawnDue, true)
}

func TestD13OnlyDifferencesOfTimeCount(t *testing.T) {
	// The same events a century later have the same effects.
	run := func(origin Time) (spawns []simSpawn) {
		cfg := usual(3)
		cfg.SpawnInterval = 300 * ms
		s := newSim(t, cfg)
		s.now = origin
		s.do(Event{Kind: Begin})
		for range 4 {
			s.pass(900 * ms)
			if w := s.in(1); w != nil {
				s.crash(w.id)
			}
		}
		s.do(Event{Kind: Forward, Sig: syscall.SIGTERM, Received: syscall.SIGHUP, Interval: sec})
		for range 8 {
			s.pass(sec)
			s.exitStopped()
		}
		for _, sp := range s.spawns {
			sp.at -= origin
			spawns = append(spawns, sp)
		}
		return spawns
	}
	wantAll(t, "spawns", run(100*365*24*time.Hour), run(0)...)
}
