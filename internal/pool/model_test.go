//go:build unix

package pool

import (
	"math"
	"slices"
	"syscall"
	"time"
)

// simSlot is a model of the pacing of one slot, written independently of
// pacing.go.
type simSlot struct {
	spawnedAt Time
	crashes   int  // young abnormal ends since the delay was last reset
	exits     int  // young clean ends in a row
	strays    int  // workers in a row that a stray signal ended before they were ready
	first     Time // its next spawn comes no earlier
	last      Time // its own delay holds it back no longer
	crashed   bool // SpawnInterval does not hold it back
	worker    int  // 0 if empty
	done      bool // no other worker follows
	busy      int  // spawns in a row that met a busy file
	busySince Time // the first of them
}

// stops reports whether StopTimeout ever passes.
func (s *sim) stops() bool { return s.cfg.StopTimeout >= 0 && s.cfg.StopTimeout < math.MaxInt64 }

// delay returns ErrRespawn · 2^(n-1), at most a minute or ErrRespawn.
func (s *sim) delay(n int) time.Duration {
	if n == 0 {
		return 0
	}
	d := float64(s.cfg.ErrRespawn) * math.Pow(2, float64(n-1))
	return time.Duration(min(d, float64(max(time.Minute, s.cfg.ErrRespawn))))
}

// end computes the pacing of a slot whose worker is about to be reaped.
func (s *sim) end(w *simWorker, clean, stray bool) {
	sl, e, life := s.slots[w.slot], s.cfg.ErrRespawn, s.now-w.spawnedAt
	sl.worker, sl.crashed, sl.first, sl.last = 0, false, s.now, s.now
	own := w.state < StateStopping || w.why == ReasonReadyTimeout
	ended := own && (s.cfg.Restart == RestartNever || s.cfg.Restart == RestartOnFailure && clean) && w.slot < s.max
	early := !w.ready && w.state != StateStandby
	if own && s.running && stray && !w.ready {
		if sl.strays++; sl.strays <= maxStrays {
			return
		}
	}
	if ended && (s.running || !stray || w.ready) {
		sl.done, sl.crashes, sl.exits = true, 0, 0
		return
	}
	if own && s.running && (!clean || !w.ready) {
		s.failures, s.lastFailed = append(s.failures, s.now), true
	}
	if !own || !s.running || w.gen != s.gen {
		return
	}
	sl.crashed = !clean && w.slot < s.max
	young := early || life < max(time.Second, e)
	if s.cfg.Backoff != nil {
		young = early || life < max(time.Second, s.listed(sl, clean))
	}
	if w.command && clean && young && sl.exits >= 2 {
		s.failures, s.lastFailed = append(s.failures, s.now), true
		s.endsAtOnce = sl.exits == 2
	}
	if s.cfg.Backoff != nil {
		s.endByList(sl, clean, young)
		return
	}
	if e < 0 {
		sl.exits++
		if !clean || !young {
			sl.exits = 0
		}
		return
	}
	if sl.crashes > 0 && life >= 10*s.delay(sl.crashes) && !early {
		sl.crashes = 0
	}
	switch {
	case !young:
		sl.exits = 0
	case clean:
		if sl.exits++; sl.exits > 2 {
			d := s.delay(sl.exits - 2)
			sl.first = max(s.now, sl.spawnedAt+max(e, d*8/10))
			sl.last = max(s.now, sl.spawnedAt+d*12/10)
		}
	default:
		sl.exits = 0
		sl.crashes++
		d := s.delay(sl.crashes)
		sl.first = max(s.now, sl.spawnedAt+max(e, d*8/10))
		sl.last = max(s.now, sl.spawnedAt+d*12/10)
	}
}

// endByList computes the pacing of a slot by Config.Backoff.
func (s *sim) endByList(sl *simSlot, clean, young bool) {
	d := s.listed(sl, clean)
	switch {
	case !young:
		sl.exits, sl.crashes = 0, 0
		return
	case clean:
		sl.exits++
	default:
		sl.exits = 0
		sl.crashes++
	}
	sl.first = max(s.now, sl.spawnedAt+d)
	sl.last = sl.first
}

// listed returns the delay that a young end costs by Config.Backoff: the first two
// clean ones in a row cost nothing.
func (s *sim) listed(sl *simSlot, clean bool) time.Duration {
	list, n := s.cfg.Backoff, sl.crashes
	if clean {
		n = sl.exits - 2
	}
	switch {
	case n < 0 || len(list) == 0:
		return 0
	case n < len(list):
		return list[n]
	}
	return list[len(list)-1]
}

// note updates the model before an event is applied to the Pool.
func (s *sim) note(ev Event) {
	s.lastFailed, s.endsAtOnce = false, false
	switch ev.Kind {
	case Begin:
		s.noteBegin(ev.Fresh)
	case Halt:
		s.running = false
	case Roll, Recycle, Stuck:
		s.replacing = true
	case Resize:
		s.noteResize(ev.N)
	case HoldSlot:
		if ev.N >= 0 {
			s.held[ev.N] = true
		}
	case ReleaseSlot:
		s.noteRelease(ev.N)
	case UnholdSlot:
		delete(s.held, ev.N)
	case SpawnFailed:
		s.noteSpawnFailed(ev)
	case Signal:
		s.noteSignal(ev)
	case Forward:
		s.killForwarded = s.killForwarded || ev.Sig == syscall.SIGKILL
	}
	if w := s.workers[ev.ID]; w != nil {
		s.noteWorker(w, ev)
	}
}

// noteRelease: the slot gets a worker at once, with no ends behind it.
func (s *sim) noteRelease(n int) {
	delete(s.held, n)
	sl := s.slots[n]
	if n < 0 || sl == nil {
		return
	}
	sl.done, sl.crashes, sl.exits = false, 0, 0
	if sl.worker == 0 && n < len(s.p.slots) {
		sl.first, sl.last, sl.crashed, sl.busy = s.now, s.now, false, 0
		if n < s.max {
			s.spawnFailures, s.failedUntil = 0, 0
		}
	}
}

func (s *sim) noteBegin(fresh bool) {
	s.gen++
	s.running = true
	for _, sl := range s.slots {
		sl.done = sl.done && !fresh
	}
	s.failures, s.looped = nil, false
	if s.spawnFailures > 0 {
		s.spawnFailures = 0
		s.failedUntil = min(s.failedUntil, s.failed[len(s.failed)-1]+s.spawnFailureDelay(1))
	}
	for _, sl := range s.slots {
		if sl.crashes+sl.exits > 0 {
			sl.crashes, sl.exits = 0, 0
			soonest := sl.spawnedAt + max(0, s.cfg.ErrRespawn)
			if s.cfg.Backoff != nil {
				soonest = sl.spawnedAt + s.listed(sl, false)
			}
			sl.first, sl.last = min(sl.first, soonest), min(sl.last, soonest)
		}
	}
}

func (s *sim) noteResize(n int) {
	s.max = n
	for i := range n {
		if s.slots[i] == nil {
			s.slots[i] = &simSlot{first: s.now, last: s.now}
		}
	}
	for i, sl := range s.slots {
		if i >= n && sl.worker == 0 {
			sl.crashed = false
		}
	}
}

func (s *sim) noteSpawnFailed(ev Event) {
	sl := s.slots[s.asked]
	s.busyDelay = 0
	if ev.Busy {
		if sl.busy++; sl.busy == 1 {
			sl.busySince = s.now
		}
		if end := sl.busySince + 2*sec; s.now < end {
			s.busyDelay = min(time.Duration(20*math.Pow(2, float64(sl.busy-1)))*ms, 80*ms, end-s.now)
			sl.first = s.now + s.busyDelay
			sl.last = sl.first
			return
		}
	}
	if s.p.roll.direction == forward && s.p.askedGen >= s.p.roll.rollGen {
		return // the new generation fails
	}
	s.spawnFailures++
	times := 1
	switch {
	case s.cfg.CrashLoop == 0 && ev.Shortage:
		times = 0
	case s.cfg.CrashLoop == 0:
		times = s.wanted()
	}
	s.lastFailed = times > 0
	s.failures = append(s.failures, slices.Repeat([]Time{s.now}, times)...)
	s.failed = append(s.failed, s.now)
	s.failedUntil = s.now + s.spawnFailureDelay(s.spawnFailures)
}

// noteSignal notes the signals that a worker must get once it is ready.
func (s *sim) noteSignal(ev Event) {
	if ev.Immediate || ev.Sig == s.cfg.Stop || ev.Sig == syscall.SIGKILL {
		return
	}
	for _, w := range s.workers {
		if w.state <= StateStandby && !w.ready && !w.command {
			w.held = append(w.held, ev.Sig)
		}
	}
}

func (s *sim) noteWorker(w *simWorker, ev Event) {
	switch ev.Kind {
	case Ready:
		if !w.ready && w.disconnectedAt == Never && w.slot != noSlot && w.state != StateKilled {
			s.slots[w.slot].strays = 0
		}
	case Stuck:
		if w.state < StateStopping && w.slot != noSlot && !w.exiting && w.stuckAt == Never {
			w.stuckAt = s.now
		}
	case Disconnected:
		if !w.ready && w.disconnectedAt == Never && w.state < StateStopping {
			w.disconnectedAt = s.now
		}
	case Exited:
		before := *w
		s.lastEnded = &before
		s.end(w, ev.Clean, ev.Stray)
	}
}

// spawned notes that the requested spawn succeeded.
func (s *sim) spawned(slot, gen int, command bool) {
	id := len(s.spawns) + 1
	s.spawns = append(s.spawns, simSpawn{s.now, slot, id})
	s.workers[id] = &simWorker{
		id: id, slot: slot, gen: gen, spawnedAt: s.now, command: command, stoppedAt: Never, disconnectedAt: Never, stuckAt: Never,
	}
	sl := s.slots[slot]
	sl.worker, sl.spawnedAt, sl.busy = id, s.now, 0
	if !sl.crashed {
		s.lastPaced = s.now
	}
	s.spawnFailures, s.failedUntil = 0, 0
}

// spawnFailureDelay returns the delay of all spawns after n failed ones in a
// row.
func (s *sim) spawnFailureDelay(n int) time.Duration {
	base, longest := s.cfg.ErrRespawn, max(time.Minute, s.cfg.ErrRespawn)
	if base <= 0 {
		base, longest = 100*ms, sec
	}
	return time.Duration(min(float64(base)*math.Pow(2, float64(n-1)), float64(longest)))
}

// readyDeadline returns when a worker must have become ready, or a standby
// parked, or Never.
func (s *sim) readyDeadline(w *simWorker) Time {
	if s.cfg.ReadyTimeout <= 0 || w.ready || w.state == StateStandby || s.readyAt(w) != Never {
		return Never
	}
	if w.stoppedAt != Never || w.disconnectedAt != Never || w.stuckAt != Never {
		return Never
	}
	return w.spawnedAt + s.cfg.ReadyTimeout
}

// readyAt returns when a command becomes ready by its age, or Never.
func (s *sim) readyAt(w *simWorker) Time {
	if !w.command || s.cfg.ReadyAfter == 0 || w.disconnectedAt != Never || w.stuckAt != Never {
		return Never
	}
	return w.spawnedAt + s.cfg.ReadyAfter
}

// stopDeadline returns when a worker must have stopped, or Never.
func (s *sim) stopDeadline(w *simWorker) Time {
	if w.stoppedAt == Never || !s.stops() {
		return Never
	}
	return w.stoppedAt + s.cfg.StopTimeout
}

// disconnectDeadline returns when a disconnected worker must have exited, or
// Never.
func disconnectDeadline(w *simWorker) Time {
	if w.disconnectedAt == Never {
		return Never
	}
	return w.disconnectedAt + disconnectGrace
}

// killDeadline returns when a worker must be killed at the latest, except for a
// stuck one, or Never.
func (s *sim) killDeadline(w *simWorker) Time {
	return Sooner(s.readyDeadline(w), Sooner(s.stopDeadline(w), disconnectDeadline(w)))
}

func (s *sim) passed(deadline Time) bool { return deadline != Never && s.now >= deadline }
