//go:build unix

package pool

import (
	"math"
	"syscall"
	"testing"
	"time"
)

// usual is a configuration as a program would have it that sets nothing but Max.
func usual(slots int) Config {
	return Config{Max: slots, ErrRespawn: sec, StopTimeout: 30 * sec}
}

func TestInitialBurstSpawnsAllAtOnceInOrderOfSlot(t *testing.T) {
	s := newSim(t, usual(5))
	s.do(Event{})
	want(t, "workers before Begin", len(s.workers), 0)
	s.do(Event{Kind: Begin})
	want(t, "workers", s.count(Starting), 5)
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

func TestP18SpawnIntervalHoldsBackTheReplacementOfACleanEnd(t *testing.T) {
	cfg := usual(2)
	cfg.SpawnInterval = 5 * sec
	s := begun(t, cfg)
	s.until(7 * sec)
	s.leave(1) // the last spawn was at 5 s
	s.until(20 * sec)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 10)...)
}

func TestP17SpawnIntervalDoesNotHoldBackTheReplacementOfACrash(t *testing.T) {
	cfg := usual(2)
	cfg.SpawnInterval = 5 * sec
	s := begun(t, cfg)
	s.until(7 * sec)
	s.crash(1)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 7)...)
}

func TestD4CrashesOfOneSlotDoNotStarveTheSlotsThatSpawnIntervalHoldsBack(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = 2 * sec
	s := begun(t, cfg)
	// Not young, so it is replaced at once, and always sooner than SpawnInterval after the last spawn.
	for range 10 {
		s.pass(1500 * ms)
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
	want(t, "spawns once a generation runs again", len(s.spawns), 4)
}

func TestASpawnThatIsLeftIsAskedForAgain(t *testing.T) {
	s := newSim(t, usual(1))
	s.leaving = true
	s.do(Event{Kind: Begin})
	want(t, "spawns", len(s.spawns), 0)
	s.pass(sec)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), sec)
}

func TestSpawnedPanicsWhenNoSpawnWasAskedFor(t *testing.T) {
	p := New(usual(1))
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	p.Handle(0, Event{Kind: Spawned})
}

func TestFailedSpawnsAreDelayedByOneGrowingDelayAndUseUpNoOrdinal(t *testing.T) {
	s := newSim(t, usual(3))
	s.failing = 9
	s.do(Event{Kind: Begin})
	s.pass(5 * time.Minute)
	wantAll(t, "attempts that failed", s.failed, secs(0, 1, 3, 7, 15, 31, 63, 123, 183)...)
	for i, sp := range s.spawns {
		want(t, "spawn after them", sp, simSpawn{at: 243 * sec, slot: i, id: i + 1})
	}
	// A success has reset the delay.
	s.failed, s.failing = nil, 2
	s.leave(2)
	s.pass(10 * sec)
	wantAll(t, "attempts that failed later", s.failed, secs(300, 301)...)
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), secs(243, 303)...)
	want(t, "ordinal of the last", s.in(1).id, 4)
}

func TestFailedSpawnsWithoutPacingDoNotSpin(t *testing.T) {
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

func TestDurationsBeyondAllTimeMeanNeverAndNotAtOnce(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	t.Run("StopTimeout", func(t *testing.T) {
		s := newSim(t, Config{Max: 1, ErrRespawn: sec, StopTimeout: forever})
		s.now = time.Minute
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Signal, Sig: syscall.SIGTERM})
		s.pass(1000 * time.Hour)
		want(t, "workers told to stop and not killed", s.count(Stopping), 1)
	})
	t.Run("ErrRespawn", func(t *testing.T) {
		for _, jitter := range []float64{0, 0.999} {
			p := New(Config{Max: 1, ErrRespawn: forever, Jitter: func() float64 { return jitter }})
			p.Handle(sec, Event{Kind: Begin})
			p.Handle(sec, Event{Kind: Spawned})
			for _, ev := range []Event{{Kind: Exited, ID: 1}, {Kind: Begin}} {
				st := p.Handle(2*sec, ev)
				want(t, "asked for a spawn", st.Ask, false)
			}
		}
	})
	t.Run("SpawnInterval", func(t *testing.T) {
		p := New(Config{Max: 2, ErrRespawn: sec, SpawnInterval: forever})
		p.Handle(sec, Event{Kind: Begin})
		want(t, "asked for a second spawn", p.Handle(sec, Event{Kind: Spawned}).Ask, false)
	})
	t.Run("SpawnFailed", func(t *testing.T) {
		p := New(Config{Max: 1, ErrRespawn: forever})
		p.Handle(sec, Event{Kind: Begin})
		want(t, "asked for a spawn", p.Handle(sec, Event{Kind: SpawnFailed}).Ask, false)
	})
	t.Run("Interval", func(t *testing.T) {
		s := newSim(t, usual(3))
		s.now = sec
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Forward, Sig: syscall.SIGTERM, For: syscall.SIGHUP, Interval: forever})
		want(t, "workers told to stop", s.count(Stopping), 1)
	})
}

func TestRetryTellsHowLongAFailedSpawnHoldsBackAll(t *testing.T) {
	s := newSim(t, usual(2))
	s.do(Event{Kind: Halt})
	for _, d := range secs(1, 2, 4) {
		want(t, "Retry", s.step(Event{Kind: SpawnFailed}).Retry, d)
	}
	s.until(3 * sec)
	want(t, "Retry a little later", s.step(Event{}).Retry, sec)
	s.until(10 * sec)
	want(t, "Retry when it has passed", s.step(Event{}).Retry, 0)
}

func TestD13OnlyDifferencesOfTimeCount(t *testing.T) {
	// Times are arguments; the same life a century later takes the same course.
	life := func(origin Time) (course []simSpawn) {
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
		s.do(Event{Kind: Forward, Sig: syscall.SIGTERM, For: syscall.SIGHUP, Interval: sec})
		for range 8 {
			s.pass(sec)
			s.obey()
		}
		for _, sp := range s.spawns {
			sp.at -= origin
			course = append(course, sp)
		}
		return course
	}
	wantAll(t, "spawns", life(100*365*24*time.Hour), life(0)...)
}
