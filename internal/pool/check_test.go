//go:build unix

package pool

import (
	"slices"
	"syscall"
	"time"
)

// checkSpawn: a spawn is requested only while a generation runs, for an empty
// slot below Max, and when the delay of the slot has passed.
func (s *sim) checkSpawn(st Step) {
	s.t.Helper()
	if st.Slot != noSlot && s.p.asked.queue != &s.p.toReplace && (s.held[st.Slot] || s.p.slots[st.Slot].done) {
		s.t.Fatalf("%v: a spawn in slot %d, which is held or done", s.now, st.Slot)
	}
	if s.replacing {
		s.checkReplacingSpawn(st)
		return
	}
	sl := s.slots[st.Slot]
	switch {
	case st.Gen != s.gen:
		s.t.Fatalf("%v: a spawn of generation %d in generation %d", s.now, st.Gen, s.gen)
	case !s.running:
		s.t.Fatalf("%v: a spawn while no generation runs", s.now)
	case st.Slot >= s.max:
		s.t.Fatalf("%v: a spawn in slot %d of %d", s.now, st.Slot, s.max)
	case sl.worker != 0:
		s.t.Fatalf("%v: a spawn in slot %d, which has worker %d", s.now, st.Slot, sl.worker)
	case s.now < sl.first:
		s.t.Fatalf("%v: a spawn in slot %d, which is not due before %v", s.now, st.Slot, sl.first)
	case s.now < s.failedUntil:
		s.t.Fatalf("%v: a spawn after a failed one, not due before %v", s.now, s.failedUntil)
	case !sl.crashed && s.lastPaced != Never && s.now < s.lastPaced+s.cfg.SpawnInterval:
		s.t.Fatalf("%v: a spawn in slot %d, but the last one was at %v", s.now, st.Slot, s.lastPaced)
	case st.Ordinal != len(s.spawns)+1:
		s.t.Fatalf("%v: ordinal %d after %d spawns", s.now, st.Ordinal, len(s.spawns))
	}
}

// checkWake: if nothing is due now, Wake is later than now. It is not after the
// time at which a worker must be killed or an empty slot filled.
func (s *sim) checkWake() {
	s.t.Helper()
	if s.wake != Never && s.wake <= s.now {
		s.t.Fatalf("%v: nothing is due, but Wake is %v: the loop would spin", s.now, s.wake)
	}
	for _, w := range s.workers {
		if w.state == StateStarting && s.readyAt(w) != Never && s.wakesAfter(s.readyAt(w)) {
			s.t.Fatalf("%v: worker %d is ready at %v, but Wake is %v", s.now, w.id, s.readyAt(w), s.wake)
		}
		deadline := s.killDeadline(w)
		if w.state < StateKilled && deadline != Never && s.wakesAfter(deadline) {
			s.t.Fatalf("%v: worker %d must be killed at %v, but Wake is %v", s.now, w.id, deadline, s.wake)
		}
	}
	s.checkLeftoverWake()
	for i := 0; s.running && i < s.max && !s.replacing; i++ {
		s.checkSlotWake(i, s.slots[i])
	}
}

func (s *sim) wakesAfter(t Time) bool { return s.wake == Never || s.wake > t }

func (s *sim) checkSlotWake(i int, sl *simSlot) {
	s.t.Helper()
	if sl.worker != 0 || sl.done || s.held[i] {
		return
	}
	latest := max(sl.last, s.failedUntil)
	if !sl.crashed && s.lastPaced != Never {
		latest = max(latest, s.lastPaced+s.cfg.SpawnInterval)
	}
	if s.wakesAfter(latest) {
		s.t.Fatalf("%v: slot %d is empty and due at %v, but Wake is %v", s.now, i, latest, s.wake)
	}
}

// apply carries out one effect. No signal goes to a worker that is gone, states
// only move forward, and each worker is reaped once.
func (s *sim) apply(ev Event, i int, all []Effect) {
	s.t.Helper()
	e := all[i]
	w := s.workers[e.ID]
	switch e.Kind {
	case Rolled, RollFailed:
		s.applyRoll(e)
		return
	case CrashLooped:
		s.crashLoops++
		return
	case Hold:
		s.applyHold(ev, e)
		return
	case Done:
		s.applyDone(ev, e)
		return
	case EndsAtOnce:
		if w == nil || !w.command || !s.endsAtOnce && !s.replacing {
			s.t.Fatalf("%v: after %+v %+v, not after the third young clean end of a command", s.now, ev, e)
		}
		s.ended++
		return
	case RetryDelay:
		want := max(0, s.failedUntil-s.now)
		if s.busyDelay > 0 {
			want = s.busyDelay
		}
		if ev.Kind != SpawnFailed || e.For != want {
			s.t.Fatalf("%v: after %+v a retry delay of %v, want %v", s.now, ev, e.For, want)
		}
		return
	case CheckGroup, Leftover:
		s.applyLeftover(ev, e)
		return
	}
	switch {
	case w != nil:
		s.applyToWorker(ev, w, e)
	case e.Kind == Send:
		s.applyLeftover(ev, e)
	case e.Kind == Delay && i > 0 && all[i-1].To == StateGone && all[i-1].ID == e.ID:
	default:
		s.t.Fatalf("%v: %+v concerns a worker that is gone", s.now, e)
	}
}

func (s *sim) applyToWorker(ev Event, w *simWorker, e Effect) {
	s.t.Helper()
	promoted := e.Kind == Change && e.From == StateStandby && e.To == StateStarting
	if promoted {
		s.applyPromotion(ev, w, e)
	}
	if w.slot != e.Slot && !(e.Kind == Delay && e.Slot == noSlot) {
		s.t.Fatalf("%v: %+v concerns a worker in another slot", s.now, e)
	}
	switch e.Kind {
	case Send:
		s.applySend(ev, w, e)
	case Change:
		if e.From != w.state || e.To <= e.From && !promoted {
			s.t.Fatalf("%v: worker %d is in state %d, and changes by %+v", s.now, w.id, w.state, e)
		}
		s.applyChange(ev, w, e)
	}
}

func (s *sim) applySend(ev Event, w *simWorker, e Effect) {
	s.t.Helper()
	s.checkGroup(ev, e)
	if w.state == StateKilled && (e.Sig != syscall.SIGKILL || slices.Contains(w.got, e.Sig)) {
		s.t.Fatalf("%v: worker %d was killed and is sent %v", s.now, w.id, e.Sig)
	}
	harmless := slices.Contains([]syscall.Signal{s.cfg.Stop, rollSig, dumpSig, syscall.SIGKILL, syscall.SIGCONT}, e.Sig) || ev.Immediate || w.command
	if !w.ready && w.state < StateReady && !harmless {
		s.t.Fatalf("%v: worker %d is starting and is sent %v", s.now, w.id, e.Sig)
	}
	if (e.Sig == s.cfg.Stop || e.Sig == rollSig && s.replacing) && w.stoppedAt == Never {
		w.stoppedAt = s.now
		s.checkStop(ev, w)
	}
	w.got = append(w.got, e.Sig)
}

func (s *sim) applyChange(ev Event, w *simWorker, e Effect) {
	s.t.Helper()
	w.state = e.To
	switch e.To {
	case StateReady:
		if at := s.readyAt(w); ev.Kind == Tick && (at == Never || at > s.now) {
			s.t.Fatalf("%v: worker %d becomes ready by a Tick, not due before %v", s.now, w.id, at)
		}
		w.ready, w.readyAt = true, s.now
	case StateKilled:
		w.why = e.Reason
		s.checkKill(ev, w)
	case StateGone:
		delete(s.workers, w.id)
		s.gone[w.id] = e.Reason
		s.worked = s.worked || s.hasWorked(w) || e.Reason == ReasonFinished && w.ready && !w.command
	}
}

// checkKill: a worker is killed by request or when its deadline has passed, and
// not before (D8).
func (s *sim) checkKill(ev Event, w *simWorker) {
	s.t.Helper()
	requested := ev.Kind == KillAll || ev.Kind == Signal && ev.Sig == syscall.SIGKILL || s.killForwarded
	stuck := w.stuckAt != Never && w.why == ReasonStuck
	// With a StopTimeout of zero the stop and the kill fall together: the
	// change precedes the signal in the same step.
	if !s.passed(s.killDeadline(w)) && !requested && !stuck && s.cfg.StopTimeout != 0 {
		s.t.Fatalf("%v: worker %d was killed early (stopped at %v, disconnected at %v)", s.now, w.id, w.stoppedAt, w.disconnectedAt)
	}
	if stuck && !requested && s.now < w.stuckAt+dumpTime && !s.passed(s.killDeadline(w)) {
		s.t.Fatalf("%v: worker %d, stuck since %v, was killed before it could dump", s.now, w.id, w.stuckAt)
	}
	if w.why == ReasonReadyTimeout && (w.ready || w.stoppedAt != Never) {
		s.t.Fatalf("%v: worker %d was killed by the ready timeout, but was ready or stopping", s.now, w.id)
	}
	if w.why == 0 {
		s.t.Fatalf("%v: worker %d was killed without a reason", s.now, w.id)
	}
}

func (s *sim) hasWorked(w *simWorker) bool { return w.ready && s.now-w.readyAt > time.Second }

// checkCrashLoop: a crash loop is reported by the failure that completes it, and
// once in a generation: CrashLoop failures within CrashWindow, or without that
// UnprovenLoop failures of each slot over 2.5 s or more while no worker has ever
// worked. No worker is ready.
func (s *sim) checkCrashLoop(ev Event, effects []Effect) {
	s.t.Helper()
	if s.endsAtOnce && !s.replacing && !slices.ContainsFunc(effects, func(e Effect) bool { return e.Kind == EndsAtOnce }) {
		s.t.Fatalf("%v: the third young clean end of a command is not reported", s.now)
	}
	i := slices.IndexFunc(effects, func(e Effect) bool { return e.Kind == CrashLooped })
	if ev.Kind != Exited && ev.Kind != SpawnFailed {
		if i >= 0 {
			s.t.Fatalf("%v: a crash loop by %+v", s.now, ev)
		}
		return
	}
	ready, worked := 0, s.worked
	for _, w := range s.workers {
		if w.state == StateReady && !w.exiting {
			ready++
		}
		worked = worked || s.hasWorked(w)
	}
	n, within := s.cfg.CrashLoop, s.cfg.CrashWindow
	if n == 0 && s.cfg.UnprovenLoop > 0 && !worked {
		n, within = s.cfg.UnprovenLoop*s.wanted(), max(within, time.Duration(s.cfg.UnprovenLoop)*s.cfg.ReadyTimeout)
	}
	switch {
	case i >= 0 && (ready > 0 || s.looped || n == 0 || effects[i].Failures != n || effects[i].For != within):
		s.t.Fatalf("%v: %+v with %d ready, reported before: %t; %d failures in %v are a crash loop", s.now, effects[i], ready, s.looped, n, within)
	case s.replacing:
	default:
		due := !s.looped && ready == 0 && n > 0 && len(s.failures) >= n && s.now-s.failures[len(s.failures)-n] <= within &&
			(s.cfg.CrashLoop > 0 || s.now-s.failures[0] >= 2500*ms)
		due = due && s.failures[len(s.failures)-1] == s.now && s.lastFailed
		if due != (i >= 0) {
			s.t.Fatalf("%v: a crash loop: %t, want %t (failures at %v)", s.now, i >= 0, due, s.failures)
		}
	}
	s.looped = s.looped || i >= 0
}

// wanted returns how many slots have or want a worker while none is ready.
func (s *sim) wanted() int {
	n := s.max - s.closedSlots(false)
	if s.cfg.MinSpare > 0 {
		return min(n, s.cfg.MinSpare)
	}
	return n
}

// check holds after each step.
func (s *sim) check(ev Event, effects []Effect) {
	s.t.Helper()
	s.checkCounts()
	if !s.replacing {
		s.checkOneWorkerPerSlot()
	}
	for _, w := range s.workers {
		if !w.exiting {
			s.checkWorker(ev, w)
		}
	}
	if s.replacing {
		s.checkReplacing()
	}
	s.checkClosed()
	s.checkStandbys()
	s.checkLeftovers()
	s.checkSignals(ev, effects)
	if ev.Kind == Surveyed {
		s.checkSurplus(effects)
	}
}

func (s *sim) checkCounts() {
	s.t.Helper()
	standbys, serving := 0, 0
	for _, w := range s.workers {
		switch {
		case w.slot == noSlot:
			standbys++
		case !w.exiting && (w.state == StateStarting || w.state == StateReady):
			serving++
		}
	}
	workers := len(s.workers) - standbys
	if s.p.Len() != workers || s.p.Standbys() != standbys || s.p.Max() != s.max || s.p.Generation() != s.gen {
		s.t.Fatalf("%v: Len %d, Standbys %d, Max %d, Generation %d; want %d, %d, %d, %d",
			s.now, s.p.Len(), s.p.Standbys(), s.p.Max(), s.p.Generation(), workers, standbys, s.max, s.gen)
	}
	most := s.max
	if s.replacing {
		most += s.cfg.Surge
	}
	if serving > most {
		s.t.Fatalf("%v: %d workers serve, at most %d may", s.now, serving, most)
	}
}

func (s *sim) checkOneWorkerPerSlot() {
	s.t.Helper()
	slots := map[int]int{}
	for _, w := range s.workers {
		if other, ok := slots[w.slot]; ok {
			s.t.Fatalf("%v: workers %d and %d are both in slot %d", s.now, w.id, other, w.slot)
		}
		slots[w.slot] = w.id
	}
}

func (s *sim) checkWorker(ev Event, w *simWorker) {
	s.t.Helper()
	serves := w.slot != noSlot && (w.state == StateStarting || w.state == StateReady)
	if serves && w.slot >= s.max {
		s.t.Fatalf("%v: worker %d serves in slot %d of %d", s.now, w.id, w.slot, s.max)
	}
	if (w.stoppedAt != Never) != (w.state >= StateStopping) && w.state != StateKilled {
		s.t.Fatalf("%v: worker %d is in state %d, stopped at %v", s.now, w.id, w.state, w.stoppedAt)
	}
	if ev.Kind == Tick && ev.ReadUpTo == s.now && w.state == StateStarting && s.passed(s.readyAt(w)) {
		s.t.Fatalf("%v: worker %d should have become ready at %v", s.now, w.id, s.readyAt(w))
	}
	if w.state < StateKilled && s.passed(s.killDeadline(w)) {
		s.t.Fatalf("%v: worker %d should have been killed at %v", s.now, w.id, s.killDeadline(w))
	}
}

// checkSurplus: a survey stops only idle workers, and with SpawnInterval at
// most one worker in that time.
func (s *sim) checkSurplus(effects []Effect) {
	s.t.Helper()
	for _, e := range effects {
		if e.Kind != Change || e.To != StateStopping {
			continue
		}
		if e.From != StateReady || s.p.workers[e.ID].busy {
			s.t.Fatalf("%v: a survey stops worker %d, which is not idle", s.now, e.ID)
		}
		if interval := s.cfg.SpawnInterval; interval > 0 && s.lastSurplus != Never && s.now < s.lastSurplus+interval {
			s.t.Fatalf("%v: a survey stops worker %d, but the last one was stopped at %v", s.now, e.ID, s.lastSurplus)
		}
		s.lastSurplus = s.now
	}
}

// checkSignals: a signal to all workers reaches each ready one at once, and the
// others when they are ready.
func (s *sim) checkSignals(ev Event, effects []Effect) {
	s.t.Helper()
	switch ev.Kind {
	case Signal:
		for _, w := range s.workers {
			due := w.ready || w.command || ev.Immediate || ev.Sig == s.cfg.Stop || ev.Sig == syscall.SIGKILL
			if due && w.state < StateKilled && !sends(effects, w.id, ev.Sig) {
				s.t.Fatalf("%v: worker %d did not get %v", s.now, w.id, ev.Sig)
			}
		}
	case Ready:
		if w := s.workers[ev.ID]; w != nil && w.state == StateReady {
			s.checkHeldSignals(w, effects)
		}
	}
}

func (s *sim) checkHeldSignals(w *simWorker, effects []Effect) {
	s.t.Helper()
	for _, sig := range w.held {
		if !sends(effects, w.id, sig) {
			s.t.Fatalf("%v: worker %d became ready and did not get %v, which was held for it", s.now, w.id, sig)
		}
	}
	w.held = nil
}

func sends(effects []Effect, id int, sig syscall.Signal) bool {
	return slices.ContainsFunc(effects, func(e Effect) bool {
		return e.Kind == Send && e.ID == id && e.Sig == sig
	})
}
