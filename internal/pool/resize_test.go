//go:build unix

package pool

import "testing"

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
