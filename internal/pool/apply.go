package pool

import "syscall"

// Apply changes the pool by an event that happened at now, does everything that
// is due at now, and returns the effects. The caller must carry them out in
// order. They are valid until the next call. Time must not go back from one
// call to the next. Apply panics on a Spawned event that no Plan has requested.
func (p *Pool) Apply(now Time, ev Event) []Effect {
	p.effects = p.effects[:0]
	p.postpone(ev.Frozen)
	p.handle(now, &ev)
	p.asked = nil
	p.runDue(now, ev.ReadUpTo)
	return p.effects
}

func (p *Pool) handle(now Time, ev *Event) {
	switch ev.Kind {
	case Tick:
	case Begin:
		p.begin(now, ev.Fresh)
	case Resume:
		p.running = p.gen > 0
	case Halt:
		p.running = false
		p.stopStandbys(now)
	case Spawned:
		p.spawned(now, ev)
	case SpawnFailed:
		p.spawnFailed(now, ev)
	case Signal:
		p.signalAll(now, ev)
	case Forward:
		p.forward(now, ev)
	case Roll:
		p.roll.announced, p.roll.stopSignal, p.roll.linger = true, ev.Sig, ev.Linger
	case KillAll:
		p.killAll()
	case Resize:
		p.resize(now, ev.N)
	case HoldSlot:
		p.hold(now, ev.N)
	case ReleaseSlot:
		p.release(now, ev.N)
	case UnholdSlot:
		p.unhold(now, ev.N)
	case Surveyed:
		p.stopSurplus(now)
	case GroupGone:
		p.groupGone(ev.ID)
	default:
		if w := p.workers[ev.ID]; w != nil {
			p.handleWorker(now, w, ev)
		}
	}
}

// handleWorker handles the events that concern one worker.
func (p *Pool) handleWorker(now Time, w *worker, ev *Event) {
	switch ev.Kind {
	case Ready:
		p.becomeReady(now, w)
	case Executed:
		p.executed(now, w, ev.Ready)
	case Parked:
		p.park(w)
	case Disconnected:
		p.disconnect(now, w, ev.Alive)
	case Exited:
		p.exited(now, w, ev)
	case Busy, Idle:
		p.setBusy(w, ev.Kind == Busy)
	case Recycle:
		p.recycle(now, w)
	case Stuck:
		p.dump(now, w)
	case Exiting:
		p.exiting(now, w)
	case SignalOne:
		p.signal(now, w, ev.Sig, ev.Immediate)
	}
}

// runDue does everything that is due at now.
func (p *Pool) runDue(now, readUpTo Time) {
	p.runSchedules(now)
	p.runDeadlines(now, readUpTo)
	p.runAges(now)
	p.runLinger(now)
	p.runLeftovers(now)
	p.advanceRoll(now)
	p.fillDue(now)
}

// change emits a change of a worker's state; the caller sets it.
func (p *Pool) change(w *worker, from, to State, why Reason) {
	p.effects = append(p.effects, Effect{Kind: Change, ID: w.id, Slot: w.slot.index, From: from, To: to, Reason: why})
}

func (p *Pool) send(w *worker, sig syscall.Signal) {
	p.effects = append(p.effects, Effect{Kind: Send, ID: w.id, Slot: w.slot.index, Sig: sig})
}

// sendGroup sends sig to the worker's process group, or only to the worker
// without Config.Group.
func (p *Pool) sendGroup(w *worker, sig syscall.Signal) {
	p.effects = append(p.effects, Effect{Kind: Send, ID: w.id, Slot: w.slot.index, Sig: sig, Group: p.cfg.Group})
}

// sendStop sends the signal that stops a worker to its process group.
func (p *Pool) sendStop(w *worker, sig syscall.Signal) {
	p.sendGroup(w, sig)
	if p.cfg.Continue != 0 {
		p.sendGroup(w, p.cfg.Continue)
	}
}
