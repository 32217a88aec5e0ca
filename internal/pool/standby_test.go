//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// standing returns a sim of n ready workers, 1 to n, and of parked standbys,
// which come after them.
func standing(t testing.TB, n, standbys int) *sim {
	cfg := usual(n)
	cfg.Standby, cfg.Surge = standbys, 1
	return begun(t, cfg)
}

func TestStandbysAreNotCounted(t *testing.T) {
	s := standing(t, 3, 2)
	want(t, "workers", s.p.Len(), 3)
	want(t, "standbys", s.p.Standbys(), 2)
	want(t, "parked", s.count(StateStandby), 2)
}

func TestStandbyTakesTheSlotOfACrashAtOnce(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(time.Minute)
	s.crash(1)
	want(t, "slot of the standby", s.workers[3].slot, 0)
	want(t, "state of the standby", s.workers[3].state, StateStarting)
	s.pass(standbySpawnDelay - 1)
	want(t, "spawns right after it", len(s.spawns), 3)
	s.pass(1)
	want(t, "slot of the next spawn", s.spawns[3].slot, noSlot)
	want(t, "workers", s.p.Len(), 2)
	s.do(Event{Kind: Ready, ID: 3})
	want(t, "ready", s.count(StateReady), 2)
}

// A crash that would delay the slot delays the next standby instead.
func TestStandbyIgnoresTheDelayOfASlot(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(100 * ms)
	s.crash(1)
	want(t, "state of the standby", s.workers[2].state, StateStarting)
	want(t, "spawns", len(s.spawns), 2)
	s.do(Event{Kind: Ready, ID: 2})
	s.pass(900*ms - 1)
	want(t, "spawns during the delay", len(s.spawns), 2)
	s.pass(1)
	want(t, "spawns after it", len(s.spawns), 3)
}

// A crash loop costs no more spawns than without standbys, except for those
// that were parked.
func TestStandbysDoNotFeedACrashLoop(t *testing.T) {
	s := standing(t, 2, 2)
	for end := s.now + time.Minute; s.now < end; {
		for _, id := range s.ids() {
			if w := s.workers[id]; w.state == StateStarting || w.state == StateReady {
				if w.slot == noSlot {
					s.do(Event{Kind: Parked, ID: id})
				} else {
					s.do(Event{Kind: Ready, ID: id})
					s.crash(id)
				}
			}
		}
		s.pass(10 * ms)
	}
	// Two slots and two places: each spawns once, and again after 1, 2, 4, 8,
	// 16 and 32 s.
	if n := len(s.spawns); n > 4*7 {
		t.Errorf("%d spawns in a minute in which all workers crash at once", n)
	}
}

func TestStandbyThatIsNotParkedGetsNoSlot(t *testing.T) {
	cfg := usual(1)
	cfg.Standby = 1
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Ready, ID: 1})
	s.pass(time.Minute)
	s.crash(1)
	want(t, "slot of the standby", s.workers[2].slot, noSlot)
	want(t, "slot of the next spawn", s.spawns[2].slot, 0)
}

// A parked standby needs no spawn when the system is at a limit.
func TestStandbysGrowAPoolWhileSpawnsFail(t *testing.T) {
	s := standing(t, 2, 3)
	s.failing = 1000
	s.do(Event{Kind: Resize, N: 3})
	s.pass(standbySpawnDelay) // the spawn of the next standby fails
	want(t, "failed spawns", len(s.failed), 1)
	want(t, "slot of the first standby", s.workers[3].slot, 2)
	s.do(Event{Kind: Resize, N: 4})
	want(t, "slot of the second", s.workers[4].slot, 3)
	s.crash(1)
	want(t, "slot of the third", s.workers[5].slot, 0)
	want(t, "failed spawns", len(s.failed), 1)
}

// The same is true of a slot with a delay: the standby takes it after the
// delay, even if spawns are not retried until later.
func TestStandbyFillsADueSlotWhileSpawnsFail(t *testing.T) {
	cfg := usual(2)
	cfg.Standby = 2
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Ready, ID: 1})
	s.do(Event{Kind: Ready, ID: 2})
	s.crash(1)
	s.pass(1200 * ms)
	s.do(Event{Kind: Ready, ID: 5})
	s.failing = 1000
	s.crash(5) // its slot is delayed for 2 s from its spawn, with jitter
	s.crash(2) // a spawn fails at once, and the next comes a second later
	want(t, "failed spawns", len(s.failed), 1)
	s.do(Event{Kind: Parked, ID: 3})
	s.do(Event{Kind: Parked, ID: 4})
	want(t, "slot of the first standby", s.workers[3].slot, 1)
	want(t, "slot of the second", s.workers[4].slot, noSlot)
	s.pass(2400 * ms)
	want(t, "slot of the second", s.workers[4].slot, 0)
	want(t, "failed spawns", len(s.failed), 2)
}

func TestStandbysGrowAPool(t *testing.T) {
	s := standing(t, 2, 2)
	s.do(Event{Kind: Resize, N: 5})
	want(t, "slot of the first standby", s.workers[3].slot, 2)
	want(t, "slot of the second", s.workers[4].slot, 3)
	want(t, "workers", s.p.Len(), 5)
	s.pass(standbySpawnDelay)
	want(t, "standbys", s.p.Standbys(), 2)
}

func TestStandbysEndWithTheirGeneration(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Halt})
	wantAll(t, "stopped", s.sent(syscall.SIGTERM), 3)
	s.crash(1)
	want(t, "workers", s.p.Len(), 1)
	s.do(Event{Kind: Begin})
	want(t, "slot of the first spawn", s.spawns[3].slot, 0)
	want(t, "slot of the second", s.spawns[4].slot, noSlot)
	want(t, "generation of the standby", s.workers[5].gen, 2)
	s.exitStopped()
	want(t, "standbys", s.p.Standbys(), 1)
}

func TestPoolWithoutSlotsHasNoStandbys(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Resize, N: 0})
	wantAll(t, "stopped", s.sent(syscall.SIGTERM), 3, 1, 2)
	s.exitStopped()
	want(t, "standbys", s.p.Standbys(), 0)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "standbys", s.p.Standbys(), 1)
}

// A new generation has no standbys until one of its workers was ready, or after
// it has failed.
func TestStandbysOfARoll(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.exitStopped()
	want(t, "standbys before one was ready", s.p.Standbys(), 0)
	s.do(Event{Kind: Ready, ID: 4})
	s.pass(0)
	want(t, "standbys after that", s.p.Standbys(), 1)
	s.readyAll()
	standby := s.parked()
	want(t, "generation of the standby", standby.gen, 2)
	s.crash(5)
	want(t, "generations failed", s.rollsFailed, 1)
	want(t, "state of the standby", standby.state, StateStopping)
	for range 4 {
		s.exitStopped()
		s.readyAll()
		s.pass(sec)
	}
	want(t, "generation of the standby after the failure", s.parked().gen, 1)
}

func TestSignalsAreHeldForAStandby(t *testing.T) {
	s := standing(t, 1, 1)
	s.do(Event{Kind: Forward, Sig: syscall.SIGUSR1, Received: syscall.SIGUSR1, Interval: sec})
	wantAll(t, "sent", s.sent(syscall.SIGUSR1), 1)
	s.pass(time.Minute)
	s.crash(1)
	s.do(Event{Kind: Ready, ID: 2})
	wantAll(t, "sent when it is ready in a slot", s.sent(syscall.SIGUSR1), 2)
}

// A worker that is about to exit leaves its slot before it is reaped. It is no
// longer counted, and its exit is still reported.
func TestExitingWorkerLeavesItsSlot(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Exiting, ID: 1})
	want(t, "slot of the standby", s.workers[3].slot, 0)
	s.do(Event{Kind: Ready, ID: 3})
	s.crash(1)
	want(t, "reason", s.gone[1], ReasonCrashed)
	want(t, "workers", s.p.Len(), 2)
	s.pass(standbySpawnDelay)
	want(t, "standbys", s.p.Standbys(), 1)
}

// An exiting worker keeps its slot if its end may delay the slot, or if no
// standby is parked.
func TestExitingWorkerKeepsItsSlot(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(900 * ms)
	s.do(Event{Kind: Exiting, ID: 1})
	want(t, "slot of the standby when the life is young", s.workers[3].slot, noSlot)
	s.pass(time.Minute)
	s.do(Event{Kind: Exiting, ID: 1})
	s.do(Event{Kind: Exiting, ID: 2})
	want(t, "workers", s.p.Len(), 3) // the next standby is not parked yet
	s.crash(1)
	s.crash(2)
	want(t, "workers", s.p.Len(), 2)
}

func TestStandbyThatCrashesIsDelayed(t *testing.T) {
	s := standing(t, 1, 1)
	for _, at := range secs(0, 1, 2.6, 5.8) {
		s.until(at)
		s.crash(s.ids()[len(s.ids())-1])
	}
	wantAll(t, "spawns of the standby", s.spawnTimes(noSlot), secs(0, 1, 2.6, 5.8)...)
}

func TestDisconnectedStandbyGetsNoSlot(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Disconnected, ID: 2})
	s.crash(1)
	want(t, "slot of the standby", s.workers[2].slot, noSlot)
	want(t, "slot of the next spawn", s.spawns[2].slot, 0)
	s.pass(disconnectGrace)
	want(t, "state of the standby", s.workers[2].state, StateKilled)
}

// A long life resets the delay of a slot, even if the worker left it before it
// was reaped.
func TestLongLifeOfExitingWorkerResetsTheDelay(t *testing.T) {
	s := standing(t, 1, 1)
	delay := func() (d time.Duration) {
		for _, e := range s.crash(s.in(0).id) {
			if e.Kind == Delay {
				d = e.For
			}
		}
		return d
	}
	s.crash(1)
	s.readyAll()
	want(t, "delay after the second crash", delay(), 1600*ms)
	s.pass(time.Minute)
	s.readyAll()
	s.pass(time.Minute)
	old := s.in(0).id
	s.do(Event{Kind: Exiting, ID: old})
	want(t, "exiting", s.workers[old].exiting, true)
	s.crash(old)
	want(t, "delay after a long life", delay(), sec)
}

// A worker that keeps running after Exiting has become another program. Its
// slot has another worker.
func TestExitingWorkerThatKeepsRunningIsStopped(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Exiting, ID: 1})
	s.do(Event{Kind: Ready, ID: 2})
	s.pass(exitingGrace - 1)
	want(t, "state before", s.workers[1].state, StateReady)
	s.pass(1)
	wantAll(t, "stopped", s.sent(syscall.SIGTERM), 1)
	s.pass(s.cfg.StopTimeout)
	want(t, "state after StopTimeout", s.workers[1].state, StateKilled)
	s.exit(1, Event{Killed: true})
	want(t, "workers", s.p.Len(), 1)
}

// A kill of all workers from outside hits the standbys too. A standby can get a
// slot before its own end is reported. Its end does not delay the slot.
func TestStandbyKilledBeforeItWasReady(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ready  bool
		end    Event
		filled bool
	}{
		{"killed", false, Event{Killed: true}, true},
		{"killed when ready", true, Event{Killed: true}, false},
		{"OOM-killed", false, Event{Killed: true, OOMKilled: true}, false},
		{"crashed", false, Event{}, false},
	} {
		s := standing(t, 1, 1)
		s.pass(time.Minute)
		s.exit(1, Event{Killed: true})
		want(t, "slot of the standby", s.workers[2].slot, 0)
		if tt.ready {
			s.do(Event{Kind: Ready, ID: 2})
		}
		s.exit(2, tt.end)
		want(t, tt.name+": the slot is filled", s.in(0) != nil, tt.filled)
	}
}

// A standby that has parked ends the count of strays in its place: they count in a
// row.
func TestStraysOfAStandby(t *testing.T) {
	s := standing(t, 1, 1)
	s.do(Event{Kind: Halt})
	s.exitStopped()
	s.do(Event{Kind: Begin})
	standby := func() int {
		for id, w := range s.workers {
			if w.slot == noSlot {
				return id
			}
		}
		t.Fatal("no standby")
		return 0
	}
	s.pass(sec)
	s.exit(standby(), Event{Stray: true})
	s.pass(sec)
	place := s.p.standby.places[0]
	want(t, "strays", place.strays, 1)
	s.do(Event{Kind: Parked, ID: standby()})
	want(t, "strays after a standby has parked", place.strays, 0)
}
