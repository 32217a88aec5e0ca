//go:build unix

package pool

import (
	"math"
	"slices"
	"syscall"
	"time"
)

// simSlot restates, for one slot, what is promised about pacing, in other words than pacing.go.
type simSlot struct {
	spawnedAt Time
	crashes   int  // young abnormal ends since the delay was last reset
	leaves    int  // young clean ends in a row
	first     Time // its next spawn comes not before this
	last      Time // nor is it held back by its own pace after this
	crashed   bool // so SpawnInterval does not hold it back
	worker    int  // 0 if empty
}

// stops says whether StopTimeout ever comes.
func (s *sim) stops() bool { return s.cfg.StopTimeout >= 0 && s.cfg.StopTimeout < math.MaxInt64 }

// delay is ErrRespawn · 2^(n-1), at most a minute or ErrRespawn.
func (s *sim) delay(n int) time.Duration {
	if n == 0 {
		return 0
	}
	d := float64(s.cfg.ErrRespawn) * math.Pow(2, float64(n-1))
	return time.Duration(min(d, float64(max(time.Minute, s.cfg.ErrRespawn))))
}

// end works out the pace of a slot whose worker is about to be reaped.
func (s *sim) end(w *simWorker, clean bool) {
	sl, e, life := s.slots[w.slot], s.cfg.ErrRespawn, s.now-w.spawnedAt
	sl.worker, sl.crashed, sl.first, sl.last = 0, false, s.now, s.now
	byItself := w.state < Stopping || w.why == NeverReady
	if !byItself || !s.running || w.gen != s.gen {
		return
	}
	sl.crashed = !clean && w.slot < s.max
	if e < 0 {
		return
	}
	if sl.crashes > 0 && life >= 10*s.delay(sl.crashes) {
		sl.crashes = 0
	}
	switch young := life < max(time.Second, e); {
	case !young:
		sl.leaves = 0
	case clean:
		if sl.leaves++; sl.leaves > 2 {
			sl.first = max(s.now, sl.spawnedAt+e)
			sl.last = sl.first
		}
	default:
		sl.leaves = 0
		sl.crashes++
		d := s.delay(sl.crashes)
		sl.first = max(s.now, sl.spawnedAt+max(e, d*8/10))
		sl.last = max(s.now, sl.spawnedAt+d*12/10)
	}
}

// note follows an event in the restatement, before the Pool sees it.
func (s *sim) note(ev Event) {
	switch w := s.workers[ev.ID]; ev.Kind {
	case Begin:
		s.gen++
		s.running = true
		if s.failures > 0 {
			s.failures = 0
			s.failedTil = min(s.failedTil, s.failed[len(s.failed)-1]+s.failurePause(1))
		}
		for _, sl := range s.slots {
			if sl.crashes+sl.leaves > 0 {
				sl.crashes, sl.leaves = 0, 0
				soonest := sl.spawnedAt + max(0, s.cfg.ErrRespawn)
				sl.first, sl.last = min(sl.first, soonest), min(sl.last, soonest)
			}
		}
	case Halt:
		s.running = false
	case Roll, Retire, Jam:
		s.rolls = true
		if w != nil && ev.Kind == Jam && w.state < Stopping && w.slot != noSlot && !w.yielded && w.jammedAt == Never {
			w.jammedAt = s.now
		}
	case Resize:
		s.max = ev.N
		for i := range ev.N {
			if s.slots[i] == nil {
				s.slots[i] = &simSlot{first: s.now, last: s.now}
			}
		}
		for i, sl := range s.slots {
			if i >= ev.N && sl.worker == 0 {
				sl.crashed = false
			}
		}
	case SpawnFailed:
		if s.p.roll.way == forward && s.p.askedGen >= s.p.roll.fresh {
			return // it is the new generation that is blamed
		}
		s.failures++
		s.failed = append(s.failed, s.now)
		s.failedTil = s.now + s.failurePause(s.failures)
	case Lost:
		if w != nil && !w.reached && w.lostAt == Never && w.state < Stopping {
			w.lostAt = s.now
		}
	case Exited:
		if w != nil {
			before := *w
			s.ended = &before
			s.end(w, ev.Clean)
		}
	case Signal:
		for _, w := range s.workers {
			if w.state <= Standby && !w.reached && ev.Sig != s.cfg.Stop && ev.Sig != syscall.SIGKILL && !ev.Now {
				w.owed = append(w.owed, ev.Sig)
			}
		}
	case Forward:
		s.forwarded = s.forwarded || ev.Sig == syscall.SIGKILL
	}
}

// failurePause is how long all spawns wait after n in a row that failed.
func (s *sim) failurePause(n int) time.Duration {
	base, longest := s.cfg.ErrRespawn, max(time.Minute, s.cfg.ErrRespawn)
	if base <= 0 {
		base, longest = 100*ms, sec
	}
	return time.Duration(min(float64(base)*math.Pow(2, float64(n-1)), float64(longest)))
}

// checkSpawn: a spawn is asked for only while a generation runs, of an empty slot below Max, and when its pace allows.
func (s *sim) checkSpawn(st Step) {
	s.t.Helper()
	sl := s.slots[st.Spawn]
	if s.rolls {
		s.checkRollingSpawn(st)
		return
	}
	switch {
	case st.Gen != s.gen:
		s.t.Fatalf("%v: a spawn of generation %d in generation %d", s.now, st.Gen, s.gen)
	case !s.running:
		s.t.Fatalf("%v: a spawn while no generation runs", s.now)
	case st.Spawn >= s.max:
		s.t.Fatalf("%v: a spawn in slot %d of %d", s.now, st.Spawn, s.max)
	case sl.worker != 0:
		s.t.Fatalf("%v: a spawn in slot %d, which has worker %d", s.now, st.Spawn, sl.worker)
	case s.now < sl.first:
		s.t.Fatalf("%v: a spawn in slot %d, whose pace allows none before %v", s.now, st.Spawn, sl.first)
	case s.now < s.failedTil:
		s.t.Fatalf("%v: a spawn, but the last one failed, wait until %v", s.now, s.failedTil)
	case !sl.crashed && s.paced != Never && s.now < s.paced+s.cfg.SpawnInterval:
		s.t.Fatalf("%v: a spawn in slot %d, but the last one was at %v", s.now, st.Spawn, s.paced)
	case st.Ordinal != len(s.spawns)+1:
		s.t.Fatalf("%v: ordinal %d after %d spawns", s.now, st.Ordinal, len(s.spawns))
	}
}

func (s *sim) spawned(slot, gen int) {
	id := len(s.spawns) + 1
	s.spawns = append(s.spawns, simSpawn{s.now, slot, id})
	s.workers[id] = &simWorker{
		id: id, slot: slot, gen: gen, spawnedAt: s.now, toldAt: Never, lostAt: Never, jammedAt: Never,
	}
	sl := s.slots[slot]
	sl.worker, sl.spawnedAt = id, s.now
	if !sl.crashed {
		s.paced = s.now
	}
	s.failures, s.failedTil = 0, 0
}

// checkWake: with nothing to do now, Wake lies ahead, and not beyond the moment at which some worker must be killed or
// some empty slot filled.
func (s *sim) checkWake() {
	s.t.Helper()
	if s.wake != Never && s.wake <= s.now {
		s.t.Fatalf("%v: nothing to do, but Wake is %v: the loop would spin", s.now, s.wake)
	}
	for _, w := range s.workers {
		deadline := Time(math.MaxInt64)
		if w.toldAt != Never && s.stops() {
			deadline = w.toldAt + s.cfg.StopTimeout
		}
		if w.lostAt != Never {
			deadline = min(deadline, w.lostAt+lostGrace)
		}
		if s.tooSlowAt(w) != Never {
			deadline = min(deadline, s.tooSlowAt(w))
		}
		if w.state < Killed && deadline < math.MaxInt64 && (s.wake == Never || s.wake > deadline) {
			s.t.Fatalf("%v: worker %d is to be killed at %v, but Wake is %v", s.now, w.id, deadline, s.wake)
		}
	}
	s.checkRestWake()
	for i := 0; s.running && i < s.max && !s.rolls; i++ {
		sl := s.slots[i]
		if sl.worker != 0 {
			continue
		}
		latest := max(sl.last, s.failedTil)
		if !sl.crashed && s.paced != Never {
			latest = max(latest, s.paced+s.cfg.SpawnInterval)
		}
		if s.wake == Never || s.wake > latest {
			s.t.Fatalf("%v: slot %d is empty and may be filled at %v, but Wake is %v", s.now, i, latest, s.wake)
		}
	}
}

// apply does what one effect says: nothing is sent to the gone, states only move forward, each spawn is reaped once.
func (s *sim) apply(ev Event, i int, all []Effect) {
	s.t.Helper()
	e := all[i]
	w := s.workers[e.ID]
	switch e.Kind {
	case Rolled, GaveUp:
		s.rolled(e)
		return
	case Surrender:
		s.surrendered++
		return
	}
	if e.Kind == Look || e.Kind == Rest || e.Kind == Send && w == nil {
		s.applyRest(ev, e)
		return
	}
	if w == nil && e.Kind == Delay && i > 0 && all[i-1].To == Gone && all[i-1].ID == e.ID {
		return
	}
	promoted := w != nil && e.Kind == Change && e.From == Standby && e.To == Starting
	if promoted {
		s.checkPromoted(ev, w, e)
	}
	if w == nil || w.slot != e.Slot && !(e.Kind == Delay && e.Slot == noSlot) {
		s.t.Fatalf("%v: %+v is about a worker that is gone, or in another slot", s.now, e)
	}
	switch e.Kind {
	case Send:
		s.checkGroup(ev, e)
		if w.state == Killed && (e.Sig != syscall.SIGKILL || slices.Contains(w.got, e.Sig)) {
			s.t.Fatalf("%v: worker %d was killed and is sent %v", s.now, w.id, e.Sig)
		}
		harmless := e.Sig == s.cfg.Stop || e.Sig == rollSig || e.Sig == dumpSig || e.Sig == syscall.SIGKILL || ev.Now || e.Sig == syscall.SIGCONT
		if !w.reached && w.state < Ready && !harmless {
			s.t.Fatalf("%v: worker %d is starting and is sent %v", s.now, w.id, e.Sig)
		}
		if (e.Sig == s.cfg.Stop || e.Sig == rollSig && s.rolls) && w.toldAt == Never {
			w.toldAt = s.now
			s.checkTold(ev, w)
		}
		w.got = append(w.got, e.Sig)
	case Change:
		if e.From != w.state || e.To <= e.From && !promoted {
			s.t.Fatalf("%v: worker %d is in state %d, told %+v", s.now, w.id, w.state, e)
		}
		w.state = e.To
		switch e.To {
		case Ready:
			w.reached = true
		case Killed:
			w.why = e.Reason
			s.checkKill(ev, w)
		case Gone:
			delete(s.workers, w.id)
			s.gone[w.id] = e.Reason
		}
	}
}

// tooSlowAt is when a worker has had its time to become ready, or a standby its time to be parked.
func (s *sim) tooSlowAt(w *simWorker) Time {
	if s.cfg.ReadyTimeout <= 0 || w.reached || w.state == Standby || w.toldAt != Never || w.lostAt != Never || w.jammedAt != Never {
		return Never
	}
	return w.spawnedAt + s.cfg.ReadyTimeout
}

func (s *sim) tooSlow(w *simWorker) bool {
	at := s.tooSlowAt(w)
	return at != Never && s.now >= at
}

// checkKill: a worker is killed when someone said so, or when its time is over, not before (D8).
func (s *sim) checkKill(ev Event, w *simWorker) {
	s.t.Helper()
	late := s.stops() && w.toldAt != Never && s.now-w.toldAt >= s.cfg.StopTimeout
	lost := w.lostAt != Never && s.now-w.lostAt >= lostGrace
	byHand := ev.Kind == KillAll || ev.Kind == Signal && ev.Sig == syscall.SIGKILL || s.forwarded
	// A stop signal and its timeout of zero fall together: the change comes before the kill in the same step.
	if !late && !lost && !byHand && !s.tooSlow(w) && !(w.jammedAt != Never && w.why == Stuck) && s.cfg.StopTimeout != 0 {
		s.t.Fatalf("%v: worker %d was killed early (told at %v, lost at %v)", s.now, w.id, w.toldAt, w.lostAt)
	}
	if w.why == NeverReady && (w.reached || w.toldAt != Never) {
		s.t.Fatalf("%v: worker %d was killed as never ready, but was ready or told to stop", s.now, w.id)
	}
	if w.why == 0 {
		s.t.Fatalf("%v: worker %d was killed for no reason", s.now, w.id)
	}
}

// check holds after each step, whatever the event was.
func (s *sim) check(ev Event, st Step) {
	s.t.Helper()
	if s.p.Len()+s.p.Standbys() != len(s.workers) || s.p.Max() != s.max || s.p.Generation() != s.gen {
		s.t.Fatalf("%v: Len %d, Max %d, Generation %d; want %d, %d, %d",
			s.now, s.p.Len(), s.p.Max(), s.p.Generation(), len(s.workers), s.max, s.gen)
	}
	serving := 0
	slots := map[int]int{}
	for _, w := range s.workers {
		if w.yielded {
			continue
		}
		if other, ok := slots[w.slot]; ok && !s.rolls {
			s.t.Fatalf("%v: workers %d and %d are both in slot %d", s.now, w.id, other, w.slot)
		}
		slots[w.slot] = w.id
		if w.slot != noSlot && (w.state == Starting || w.state == Ready) {
			serving++
			if w.slot >= s.max {
				s.t.Fatalf("%v: worker %d serves in slot %d of %d", s.now, w.id, w.slot, s.max)
			}
		}
		if (w.toldAt != Never) != (w.state >= Stopping) && w.state != Killed {
			s.t.Fatalf("%v: worker %d is in state %d, told to stop at %v", s.now, w.id, w.state, w.toldAt)
		}
		timeout := s.stops() && w.toldAt != Never && s.now-w.toldAt >= s.cfg.StopTimeout
		grace := w.lostAt != Never && s.now-w.lostAt >= lostGrace
		if w.state < Killed && (timeout || grace || s.tooSlow(w)) {
			s.t.Fatalf("%v: worker %d should have been killed (told %v, lost %v)", s.now, w.id, w.toldAt, w.lostAt)
		}
	}
	most := s.max
	if s.rolls {
		most += s.cfg.Surge
	}
	if serving > most {
		s.t.Fatalf("%v: %d workers serve, at most %d may", s.now, serving, most)
	}
	if s.rolls {
		s.checkRolls()
	}
	s.checkStandbys()
	s.checkRests()
	s.checkHeard(ev, st)
}

// checkHeard: a signal to all reaches each worker that is ready at once, and the others when they do.
func (s *sim) checkHeard(ev Event, st Step) {
	s.t.Helper()
	heard := func(id int, sig syscall.Signal) bool {
		return slices.ContainsFunc(st.Effects, func(e Effect) bool {
			return e.Kind == Send && e.ID == id && e.Sig == sig
		})
	}
	switch ev.Kind {
	case Signal:
		for _, w := range s.workers {
			now := w.reached || ev.Now || ev.Sig == s.cfg.Stop || ev.Sig == syscall.SIGKILL
			if now && w.state < Killed && !heard(w.id, ev.Sig) {
				s.t.Fatalf("%v: worker %d did not get %v", s.now, w.id, ev.Sig)
			}
		}
	case Reached:
		w := s.workers[ev.ID]
		if w == nil || w.state != Ready {
			return
		}
		for _, sig := range w.owed {
			if !heard(w.id, sig) {
				s.t.Fatalf("%v: worker %d reached Start and did not get %v, which was held for it", s.now, w.id, sig)
			}
		}
		w.owed = nil
	}
}
