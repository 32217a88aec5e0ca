package pool

import "time"

// disconnectGrace is how long a worker may take to exit after it closed its
// control socket without having been ready.
const disconnectGrace = 100 * time.Millisecond

// maxStrays is how many workers of a slot in a row may end by a stray signal
// before they are ready. `killall` and `systemctl kill` signal all processes, also
// a worker that has just been started and cannot ignore the signal yet. Its end
// predicts nothing about the next worker. Without a limit, a worker that sends
// itself such a signal would be replaced without a pause.
const maxStrays = 10

// disconnect limits the life of a worker that closed its control socket. Nearly
// always it is about to exit, and Exited follows a moment later. A worker that
// keeps running without having been ready has replaced itself by another
// program, or by the same program without its marker, which would act as a
// manager. It is killed: at once if the caller knows that it is alive, even if
// it was ready.
func (p *Pool) disconnect(now Time, w *worker, alive bool) {
	if alive {
		p.kill(w, ReasonReadyTimeout)
		return
	}
	if w.ready || w.disconnected || w.state >= StateStopping {
		return
	}
	p.clearDeadline(w)
	p.unpark(w)
	w.disconnected = true
	p.setDeadline(w, now+disconnectGrace)
}

// exited removes a worker that was reaped, and keeps the leftover processes of
// its group.
func (p *Pool) exited(now Time, w *worker, ev *Event) {
	state, deadline := w.state, p.deadlineOf(w)
	p.remove(now, w, ev)
	if ev.Leftover {
		p.addLeftover(now, w, state, deadline)
	}
}

func (p *Pool) remove(now Time, w *worker, ev *Event) {
	p.unlink(w)
	s := w.slot
	holder := s.worker == w
	reason, ends := classify(w, ev)
	own, stray := ends && p.running, ev.Stray && !w.ready
	if own && stray {
		s.strays++
		stray = s.strays <= maxStrays
		own = !stray
	}
	// Only an end of the worker's own accord predicts anything about the next
	// worker of the slot, and a worker that was replaced has no next one.
	judged := own && (holder || s.replacement == w) && p.endCounts(w.gen)
	if holder || s.replacement == w {
		s.due = now
	}
	if !ev.Stray || w.ready {
		p.countEnd(s, w, now, reason)
	}
	success := ev.Clean && holder && p.finishes(s, true)
	rollFails := judged && !success && p.judgeEnd(now, w, ev)
	finished := ends && !stray && holder && !rollFails && p.finishes(s, ev.Clean)
	if finished {
		p.finish(now, s)
	}
	p.leaveSlot(w, StateGone)
	if holder {
		p.occupy(s, nil)
	}
	if ev.NoGrace && w.hasWorked(now) {
		p.effects = append(p.effects, Effect{Kind: WorkCut, ID: w.id, Slot: s.index})
	}
	if rollFails {
		p.failRoll(now, w.id, w.gen, reason)
	}
	p.change(w, w.state, StateGone, reason)
	p.setState(w, StateGone)
	if finished {
		p.effects = append(p.effects, Effect{Kind: Done, ID: w.id, Slot: s.index})
	}
	if holder {
		p.vacate(now, s, judged && !ev.Clean)
		p.reportDelay(now, w, s)
	}
	// A worker of this program that was ready and exits with code 0 has worked. A
	// Command may have put itself into the background.
	worked := reason == ReasonFinished && w.ready && !w.command
	p.proven = p.proven || worked || w.hasWorked(now)
	background := w.command && judged && s.cleanEnds > freeCleanEnds
	if own && !finished && (!ev.Clean || !w.ready || background) {
		p.recordFailure(now, false)
	}
}

// judgeEnd sets the delay of a slot after its worker has exited, and reports
// whether the worker's generation fails. In that case the slot has no delay:
// the generation before it gets the slot back, and did not cause the failure.
func (p *Pool) judgeEnd(now Time, w *worker, ev *Event) (rollFails bool) {
	s, life := w.slot, now-w.spawnedAt
	// A kill from outside, which may have hit all processes at once, can find a
	// standby just after it got its slot.
	early := !w.ready && w.state != StateStandby
	if ev.Killed && !ev.OOMKilled && !w.ready && w.state < StateKilled {
		life += w.standbyTime
		early = early && w.standbyTime == 0
	}
	p.pace(now, s, life, early, ev.Clean)
	if s.cleanEnds == freeCleanEnds+1 && w.command {
		p.effects = append(p.effects, Effect{Kind: EndsAtOnce, ID: w.id, Slot: s.index})
	}
	if !p.failsRoll(now, w, life, ev.Clean) {
		return false
	}
	s.forgetEnds()
	s.due = now
	return true
}

// reportDelay reports that an empty slot is not due yet. Worker w was its last.
func (p *Pool) reportDelay(now Time, w *worker, s *slot) {
	if s.worker == nil && s.due > now {
		p.effects = append(p.effects, Effect{Kind: Delay, ID: w.id, Slot: s.index, For: s.due - now})
	}
}

// unlink removes a worker from everything except its slot.
func (p *Pool) unlink(w *worker) {
	p.deadlines.remove(w)
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.oldest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		p.newest = w.prev
	}
	delete(p.workers, w.id)
	if w.isStandby() {
		p.standby.alive--
		p.unpark(w)
	}
}

// classify returns why a worker ended, and whether it ended of its own accord.
func classify(w *worker, ev *Event) (reason Reason, own bool) {
	switch {
	case ev.OOMKilled && w.state < StateKilled:
		return ReasonOutOfMemory, w.state < StateStopping
	case w.stuck && w.state != StateStopping:
		return ReasonStuck, true
	case w.state == StateKilled && ev.Killed:
		return w.killReason, w.killReason == ReasonReadyTimeout
	case w.state >= StateStopping && w.killReason == 0 && w.recycled:
		return ReasonRecycled, false
	case w.state >= StateStopping && w.killReason != ReasonReadyTimeout:
		return ReasonStopped, false
	case ev.Clean:
		return ReasonFinished, true
	}
	return ReasonCrashed, true
}
