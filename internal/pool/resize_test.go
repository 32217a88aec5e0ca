//go:build unix

package pool

import (
	"math"
	"testing"
)

func TestD11LoweringMaxStopsTheSurplus(t *testing.T) {
	s := begun(t, usual(10))
	s.do(Event{Kind: Resize, N: 3})
	wantAll(t, "stopped", s.sent(term), 4, 5, 6, 7, 8, 9, 10)
	want(t, "workers before they are reaped", len(s.workers), 10)
	s.exitStopped()
	s.pass(10 * sec)
	wantAll(t, "workers left", s.ids(), 1, 2, 3)
	want(t, "spawns", len(s.spawns), 10)
	s.do(Event{Kind: Resize, N: 3})
	want(t, "effects of the same Max again", len(s.effects), 0)
}

func TestD11SurplusIsKilledAfterStopTimeout(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Resize, N: 1})
	s.pass(30 * sec)
	wantAll(t, "killed", s.sent(kill), 2)
}

func TestD11StoppingSurplusIsNotStoppedTwice(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Signal, Sig: term})
	s.do(Event{Kind: Resize, N: 1})
	wantAll(t, "stopped again", s.sent(term))
}

func TestRaisingMaxFillsTheNewSlots(t *testing.T) {
	s := begun(t, usual(2))
	s.until(sec)
	s.do(Event{Kind: Resize, N: 4})
	want(t, "starting", s.count(StateStarting), 2)
	wantAll(t, "spawns in slot 3", s.spawnTimes(3), sec)
}

func TestRaisingMaxKeepsSpawnInterval(t *testing.T) {
	cfg := usual(1)
	cfg.SpawnInterval = sec
	s := begun(t, cfg)
	s.until(500 * ms)
	s.do(Event{Kind: Resize, N: 3})
	s.pass(5 * sec)
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), sec)
	wantAll(t, "spawns in slot 2", s.spawnTimes(2), 2*sec)
}

func TestRaisingMaxWaitsForSlotsOfStoppingSurplus(t *testing.T) {
	s := begun(t, usual(4))
	s.do(Event{Kind: Resize, N: 1})
	s.do(Event{Kind: Resize, N: 3})
	want(t, "workers", len(s.workers), 4)
	want(t, "spawns", len(s.spawns), 4)
	s.until(100 * ms)
	s.exitStopped()
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), 0, 100*ms)
	wantAll(t, "spawns in slot 2", s.spawnTimes(2), 0, 100*ms)
	wantAll(t, "spawns in slot 3", s.spawnTimes(3), 0)
}

func TestMaxOfZeroAndBack(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Resize, N: 0})
	s.exitStopped()
	want(t, "workers", len(s.workers), 0)
	want(t, "Wake", s.wake, Never)
	s.do(Event{Kind: Resize, N: 2})
	want(t, "workers", len(s.workers), 2)
}

func TestSlotOutOfUseKeepsItsDelay(t *testing.T) {
	s := begun(t, usual(1))
	s.crash(1)
	s.do(Event{Kind: Resize, N: 0})
	want(t, "Wake", s.wake, Never)
	s.do(Event{Kind: Resize, N: 1})
	s.pass(10 * sec)
	wantAll(t, "spawns", s.spawnTimes(0), secs(0, 1)...)
}

func TestResizeBetweenGenerations(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Resize, N: 4})
	want(t, "workers", len(s.workers), 2)
	s.do(Event{Kind: Begin})
	want(t, "workers", len(s.workers), 4)
}

// A slot costs nothing before its first worker, so any number of them may be
// asked for. The policy must not take time or memory for each, or the manager
// would do nothing else for seconds.
func TestSlotsCostNothingBeforeTheirFirstWorker(t *testing.T) {
	cfg := usual(2)
	cfg.SpawnInterval = sec
	p := New(cfg)
	p.Apply(0, Event{Kind: Begin})
	spawn := func(at Time, slot int) {
		t.Helper()
		p.Apply(at, Event{Kind: Tick})
		if st := p.Plan(at); !st.SpawnDue || st.Slot != slot {
			t.Fatalf("at %v: %+v, want a spawn in slot %d", at, st, slot)
		}
		p.Apply(at, Event{Kind: Spawned, Ready: true})
	}
	spawn(0, 0)
	spawn(sec, 1)
	p.Apply(2*sec, Event{Kind: Resize, N: math.MaxInt})
	spawn(2*sec, 2)
	p.Apply(3*sec, Event{Kind: Resize, N: 20_000_000})
	spawn(3*sec, 3)
	p.Apply(4*sec, Event{Kind: Roll})
	p.Apply(4*sec, Event{Kind: Begin})
	p.Apply(4*sec, Event{Kind: SpawnFailed})
	for range 10 {
		p.Apply(4*sec, Event{Kind: Resize, N: 1_000_000})
		p.Apply(4*sec, Event{Kind: Resize, N: math.MaxInt})
	}
	p.Apply(5*sec, Event{Kind: Resize, N: 1})
	if n := len(p.slots); n > 8 {
		t.Errorf("%d slots after 4 workers", n)
	}
	want(t, "workers that are not stopped", p.Serving(), 1)
}

// The same for the places of standbys.
func TestStandbysCostNothingBeforeTheirSpawn(t *testing.T) {
	cfg := usual(1)
	cfg.Standby = math.MaxInt
	p := New(cfg)
	p.Apply(0, Event{Kind: Begin})
	for i := range 3 {
		if st := p.Plan(0); !st.SpawnDue || (st.Slot == noSlot) != (i > 0) {
			t.Fatalf("spawn %d: %+v", i, st)
		}
		p.Apply(0, Event{Kind: Spawned})
	}
	want(t, "standbys", p.Standbys(), 2)
	if n := len(p.standby.places); n > 4 {
		t.Errorf("%d places for 2 standbys", n)
	}
}

// A slot that was never used is due since it was added, so it comes after one
// that fell empty earlier.
func TestAddedSlotsComeAfterEmptyOnes(t *testing.T) {
	cfg := usual(1)
	cfg.SpawnInterval = 10 * sec
	s := begun(t, cfg)
	s.until(2 * sec)
	s.exitZero(1)
	s.until(3 * sec)
	s.do(Event{Kind: Resize, N: 3})
	s.until(30 * sec)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), 0, 10*sec)
	wantAll(t, "spawns in slot 1", s.spawnTimes(1), 20*sec)
	wantAll(t, "spawns in slot 2", s.spawnTimes(2), 30*sec)
}

// A roll of a pool whose size is dynamic ends although most slots were never
// used.
func TestRollWithUnusedSlots(t *testing.T) {
	s := begun(t, Config{Max: 1000, Surge: 1, MinSpare: 1, MaxSpare: 2, StopTimeout: sec})
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.readyAll()
	s.exitStopped()
	want(t, "rolls completed", s.rolled, 1)
	if n := len(s.p.slots); n > 3 {
		t.Errorf("%d slots", n)
	}
}
