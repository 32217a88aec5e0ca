//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// checkStandbys: there are never more than are asked for, and none while no generation runs, but those that were told to
// stop; and none waits while a slot is to be spawned.
func (s *sim) checkStandbys() {
	s.t.Helper()
	n := 0
	for _, w := range s.workers {
		if w.slot != noSlot || w.state >= Stopping {
			continue
		}
		n++
		if !s.running || s.max == 0 {
			s.t.Fatalf("%v: worker %d stands by for nobody", s.now, w.id)
		}
		if w.gen != s.gen && w.gen != s.p.good {
			s.t.Fatalf("%v: standby %d is of generation %d; the newest is %d, the good one %d", s.now, w.id, w.gen, s.gen, s.p.good)
		}
	}
	if n > s.cfg.Standby {
		s.t.Fatalf("%v: %d standbys, want %d", s.now, n, s.cfg.Standby)
	}
	parked := s.parked()
	if parked == nil || !s.p.running || s.asked == noSlot || len(s.p.rolls) > 0 {
		return
	}
	if at, sl := s.p.nextEmpty(s.now); sl != nil && at <= s.now {
		s.t.Fatalf("%v: slot %d is to be spawned, and standby %d waits", s.now, sl.index, parked.id)
	}
}

// parked is a standby that could be given a slot.
func (s *sim) parked() *simWorker {
	for _, w := range s.workers {
		if w.state == Standby && w.lostAt == Never {
			return w
		}
	}
	return nil
}

// checkPromoted: a standby takes a slot that is empty, or whose worker is about to end, while a generation runs.
func (s *sim) checkPromoted(ev Event, w *simWorker, e Effect) {
	s.t.Helper()
	if leaves := s.workers[ev.ID]; ev.Kind == Yield && leaves != nil && leaves.slot == e.Slot {
		leaves.yielded = true
	}
	if w.slot != noSlot || !s.running || e.Slot < 0 || e.Slot >= s.max {
		s.t.Fatalf("%v: worker %d in slot %d takes slot %d of %d", s.now, w.id, w.slot, e.Slot, s.max)
	}
	for _, other := range s.workers {
		if other.slot == e.Slot && other.state < Stopping && !other.yielded && (other.gen == w.gen && !s.p.workers[other.id].retiring) {
			s.t.Fatalf("%v: standby %d takes slot %d, where worker %d is", s.now, w.id, e.Slot, other.id)
		}
	}
	w.slot, w.spawnedAt, s.spawns[w.id-1].slot = e.Slot, s.now, e.Slot
	sl := s.slots[e.Slot]
	sl.worker, sl.spawnedAt = w.id, s.now
}

// standing is a pool of n ready workers with so many standbys, parked: workers 1 to n, and those after them.
func standing(t testing.TB, n, standbys int) *sim {
	cfg := usual(n)
	cfg.Standby, cfg.Surge = standbys, 1
	return begun(t, cfg)
}

func TestStandbysAreNotCounted(t *testing.T) {
	s := standing(t, 3, 2)
	want(t, "workers", s.p.Len(), 3)
	want(t, "standbys", s.p.Standbys(), 2)
	want(t, "parked", s.count(Standby), 2)
}

func TestAStandbyTakesADeadWorkersPlaceAtOnce(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(time.Minute)
	s.crash(1)
	want(t, "slot of the standby", s.workers[3].slot, 0)
	want(t, "state of the standby", s.workers[3].state, Starting)
	s.pass(breather - 1)
	want(t, "spawns while it begins", len(s.spawns), 3)
	s.pass(1)
	want(t, "slot of the next spawn", s.spawns[3].slot, noSlot)
	want(t, "workers", s.p.Len(), 2)
	s.do(Event{Kind: Reached, ID: 3})
	want(t, "ready", s.count(Ready), 2)
}

// A crash that would hold back the slot's next spawn holds back that of the standby behind instead.
func TestAStandbyDoesNotWaitForThePaceOfASlot(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(100 * ms)
	s.crash(1)
	want(t, "state of the standby", s.workers[2].state, Starting)
	want(t, "spawns", len(s.spawns), 2)
	s.do(Event{Kind: Reached, ID: 2})
	s.pass(900*ms - 1)
	want(t, "spawns before the pause is over", len(s.spawns), 2)
	s.pass(1)
	want(t, "spawns after it", len(s.spawns), 3)
}

// A crash loop is spaced as it is without standbys, but for those that there were: each crash costs one spawn.
func TestStandbysDoNotFeedACrashLoop(t *testing.T) {
	s := standing(t, 2, 2)
	for end := s.now + time.Minute; s.now < end; {
		for _, id := range s.ids() {
			if w := s.workers[id]; w.state == Starting || w.state == Ready {
				if w.slot == noSlot {
					s.do(Event{Kind: Parked, ID: id})
				} else {
					s.do(Event{Kind: Reached, ID: id})
					s.crash(id)
				}
			}
		}
		s.pass(10 * ms)
	}
	// Each of two slots and two places: the first spawn, then after 1, 2, 4, 8, 16, 32 s.
	if n := len(s.spawns); n > 4*7 {
		t.Errorf("%d spawns in a minute in which all crash at once", n)
	}
}

func TestAStandbyThatIsNotParkedIsPassedOver(t *testing.T) {
	cfg := usual(1)
	cfg.Standby = 1
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Reached, ID: 1})
	s.pass(time.Minute)
	s.crash(1)
	want(t, "slot of the standby", s.workers[2].slot, noSlot)
	want(t, "slot of the next spawn", s.spawns[2].slot, 0)
}

// At a limit of the system a standby that is parked costs no spawn.
func TestStandbysGrowAPoolWhileSpawnsFail(t *testing.T) {
	s := standing(t, 2, 3)
	s.failing = 1000
	s.do(Event{Kind: Resize, N: 3})
	s.pass(breather) // then the standby behind it cannot be started
	want(t, "failed spawns", len(s.failed), 1)
	want(t, "slot of the first standby", s.workers[3].slot, 2)
	s.do(Event{Kind: Resize, N: 4})
	want(t, "slot of the second", s.workers[4].slot, 3)
	s.crash(1)
	want(t, "slot of the third", s.workers[5].slot, 0)
	want(t, "failed spawns", len(s.failed), 1)
}

// The same where the slot has to wait for its turn: it is looked at then, and not only when spawns may be tried again.
func TestAStandbyFillsASlotThatIsDueWhileSpawnsFail(t *testing.T) {
	cfg := usual(2)
	cfg.Standby = 2
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Reached, ID: 1})
	s.do(Event{Kind: Reached, ID: 2})
	s.crash(1)
	s.pass(1200 * ms)
	s.do(Event{Kind: Reached, ID: 5})
	s.failing = 1000
	s.crash(5) // its slot waits for 2 s, a fifth more or less, from its spawn
	s.crash(2) // this one's is tried at once, and again a second later, and not for two more
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
	s.pass(breather)
	want(t, "standbys", s.p.Standbys(), 2)
}

func TestStandbysEndWithTheirGeneration(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Halt})
	wantAll(t, "told to stop", s.sent(syscall.SIGTERM), 3)
	s.crash(1)
	want(t, "workers", s.p.Len(), 1)
	s.do(Event{Kind: Begin})
	want(t, "slot of the first spawn", s.spawns[3].slot, 0)
	want(t, "slot of the second", s.spawns[4].slot, noSlot)
	want(t, "generation of the standby", s.workers[5].gen, 2)
	s.obey()
	want(t, "standbys", s.p.Standbys(), 1)
}

func TestAPoolOfNoneHasNoStandbys(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Resize, N: 0})
	wantAll(t, "told to stop", s.sent(syscall.SIGTERM), 3, 1, 2)
	s.obey()
	want(t, "standbys", s.p.Standbys(), 0)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "standbys", s.p.Standbys(), 1)
}

// While a generation has yet to show that it can become ready, nobody of it stands by; once it is given up, nobody of it
// does any more.
func TestStandbysOfARoll(t *testing.T) {
	s := standing(t, 2, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.obey()
	want(t, "standbys of what is not proven", s.p.Standbys(), 0)
	s.do(Event{Kind: Reached, ID: 4})
	s.pass(0)
	want(t, "standbys of what is", s.p.Standbys(), 1)
	s.reachAll()
	standby := s.parked()
	want(t, "generation of the standby", standby.gen, 2)
	s.crash(5)
	want(t, "generations given up", s.gaveUp, 1)
	want(t, "state of the standby", standby.state, Stopping)
	for range 4 {
		s.obey()
		s.reachAll()
		s.pass(sec)
	}
	want(t, "generation of the standby after", s.parked().gen, 1)
}

func TestSignalsAreHeldForAStandby(t *testing.T) {
	s := standing(t, 1, 1)
	s.do(Event{Kind: Forward, Sig: syscall.SIGUSR1, For: syscall.SIGUSR1, Interval: sec})
	wantAll(t, "sent", s.sent(syscall.SIGUSR1), 1)
	s.pass(time.Minute)
	s.crash(1)
	s.do(Event{Kind: Reached, ID: 2})
	wantAll(t, "sent when it has a slot", s.sent(syscall.SIGUSR1), 2)
}

// A worker that is about to end need not be reaped first, and does not count any more; its end is its end all the same.
func TestAWorkerThatIsAboutToEndYields(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Yield, ID: 1})
	want(t, "slot of the standby", s.workers[3].slot, 0)
	s.do(Event{Kind: Reached, ID: 3})
	s.crash(1)
	want(t, "reason", s.gone[1], Crashed)
	want(t, "workers", s.p.Len(), 2)
	s.pass(breather)
	want(t, "standbys", s.p.Standbys(), 1)
}

// Where its end may be held against the slot it does not yield, nor where nobody is there.
func TestWhoDoesNotYield(t *testing.T) {
	s := standing(t, 2, 1)
	s.pass(900 * ms)
	s.do(Event{Kind: Yield, ID: 1})
	want(t, "slot of the standby of a young one", s.workers[3].slot, noSlot)
	s.pass(time.Minute)
	s.do(Event{Kind: Yield, ID: 1})
	s.do(Event{Kind: Yield, ID: 2})
	want(t, "workers", s.p.Len(), 3) // the standby behind is not parked yet
	s.crash(1)
	s.crash(2)
	want(t, "workers", s.p.Len(), 2)
}

func TestAStandbyThatDiesIsPaced(t *testing.T) {
	s := standing(t, 1, 1)
	for _, at := range secs(0, 1, 2.6, 5.8) {
		s.until(at)
		s.crash(s.ids()[len(s.ids())-1])
	}
	wantAll(t, "spawns of the standby", s.spawnTimes(noSlot), secs(0, 1, 2.6, 5.8)...)
}

func TestAStandbyThatIsLostTakesNoSlot(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Lost, ID: 2})
	s.crash(1)
	want(t, "slot of the standby", s.workers[2].slot, noSlot)
	want(t, "slot of the next spawn", s.spawns[2].slot, 0)
	s.pass(lostGrace)
	want(t, "state of the standby", s.workers[2].state, Killed)
}

// A long life resets the delay of a slot, also where its end was seen before it was reaped.
func TestALongLifeThatYieldsIsForgiven(t *testing.T) {
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
	s.reachAll()
	want(t, "delay after the second crash", delay(), 1600*ms)
	s.pass(time.Minute)
	s.reachAll()
	s.pass(time.Minute)
	old := s.in(0).id
	s.do(Event{Kind: Yield, ID: old})
	want(t, "yielded", s.workers[old].yielded, true)
	s.crash(old)
	want(t, "delay after a long life", delay(), sec)
}

// One that seemed to be about to end and lives on, as another program, is one too many: its slot has a worker.
func TestAWorkerThatYieldsAndLivesOnIsToldToStop(t *testing.T) {
	s := standing(t, 1, 1)
	s.pass(time.Minute)
	s.do(Event{Kind: Yield, ID: 1})
	s.do(Event{Kind: Reached, ID: 2})
	s.pass(yieldGrace - 1)
	want(t, "state before", s.workers[1].state, Ready)
	s.pass(1)
	wantAll(t, "told to stop", s.sent(syscall.SIGTERM), 1)
	s.pass(s.cfg.StopTimeout)
	want(t, "state after StopTimeout", s.workers[1].state, Killed)
	s.exit(1, Event{Killed: true})
	want(t, "workers", s.p.Len(), 1)
}

// Who kills all workers at once kills the standbys too, and one is given a slot before its end is seen. That says nothing
// about the slot, which is filled at once, as that of a worker of that age is.
func TestAStandbyThatWasKilledBeforeItWasAtWork(t *testing.T) {
	for _, tt := range []struct {
		what    string
		reached bool
		end     Event
		filled  bool
	}{
		{"killed", false, Event{Killed: true}, true},
		{"killed at work", true, Event{Killed: true}, false},
		{"killed for memory", false, Event{Killed: true, Memory: true}, false},
		{"crashed", false, Event{}, false},
	} {
		s := standing(t, 1, 1)
		s.pass(time.Minute)
		s.exit(1, Event{Killed: true})
		want(t, "slot of the standby", s.workers[2].slot, 0)
		if tt.reached {
			s.do(Event{Kind: Reached, ID: 2})
		}
		s.exit(2, tt.end)
		want(t, tt.what+": the slot is filled", s.in(0) != nil, tt.filled)
	}
}
