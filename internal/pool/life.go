package pool

// The life of a worker from its spawn until it is stopped. exit.go has its end.

// transition moves a worker to a later state. It is a no-op if the worker is
// there already or further on.
func (p *Pool) transition(w *worker, to State, why Reason) {
	if to <= w.state {
		return
	}
	if w.state < StateStopping && to >= StateStopping {
		p.leaveSlot(w, to)
		p.unpark(w)
	}
	p.change(w, w.state, to, why)
	p.setState(w, to)
}

// setState keeps the counters and heaps that depend on a worker's state.
func (p *Pool) setState(w *worker, to State) {
	from := w.state
	w.state = to
	switch {
	case w.isStandby():
	case from == StateNone || from == StateStandby:
		p.size.alive++
	case from < StateStopping && to >= StateStopping:
		p.discount(w, from)
	}
	if to == StateReady {
		p.size.ready++
	}
	p.updateIdle(w)
	p.updateRolled(w)
}

// discount stops counting a worker that was in state from.
func (p *Pool) discount(w *worker, from State) {
	if w.exiting {
		return
	}
	p.size.alive--
	if w.busy {
		p.size.busy--
	}
	if from == StateReady {
		p.size.ready--
	}
	p.ages.remove(w)
}

// begin starts a generation. A fresh one opens the slots that are done.
func (p *Pool) begin(now Time, fresh bool) {
	p.stopStandbys(now)
	p.gen++
	p.running = true
	if fresh {
		p.reopen(now)
	}
	p.failureTimes, p.firstFailure, p.crashLooped = nil, Never, false
	if p.spawnFailures > 0 {
		p.spawnFailures = 0
		p.failedUntil = min(p.failedUntil, after(p.failedAt, p.spawnFailureDelay(1)))
	}
	for _, s := range p.slots {
		p.resetDelay(s)
		s.crashes = 0
	}
	for _, place := range p.standby.places {
		p.resetDelay(place)
	}
	p.beginRoll(now, fresh)
}

// spawned puts a new worker into the slot that Plan has named.
func (p *Pool) spawned(now Time, ev *Event) {
	s := p.asked
	if s == nil {
		panic("pool: Spawned event without a requested spawn: call Plan first and apply Spawned next")
	}
	if s.queue != &p.urgent {
		p.lastPaced = now
	}
	if s.index == noSlot {
		p.standby.alive++
	}
	p.ordinal++
	w := &worker{id: p.ordinal, gen: p.askedGen, slot: s, spawnedAt: now, command: ev.Command, step: ev.Step, readyAt: Never}
	p.link(w)
	if s.queue == &p.toReplace {
		s.replacement = w
		p.roll.surging++
	} else {
		p.occupy(s, w)
	}
	s.dequeue()
	p.use(s)
	s.spawnedAt, s.busyTries = now, 0
	s.spawns++
	p.spawnFailures, p.failedUntil = 0, 0
	p.transition(w, StateStarting, 0)
	p.startReadyTimeout(now, w)
	p.joinRoll(w)
	if ev.Ready {
		p.becomeReady(now, w)
	}
}

// link adds a worker to the list and to the map.
func (p *Pool) link(w *worker) {
	w.prev = p.newest
	if p.newest != nil {
		p.newest.next = w
	} else {
		p.oldest = w
	}
	p.newest = w
	p.workers[w.id] = w
}

// startReadyTimeout limits the time in which a worker must become ready, or a
// standby must park. A command that becomes ready by its age has no such limit.
func (p *Pool) startReadyTimeout(now Time, w *worker) {
	switch {
	case p.readyByAge(w):
		p.setDeadline(w, after(now, p.cfg.ReadyAfter))
	case p.cfg.ReadyTimeout > 0:
		p.setDeadline(w, after(now, p.cfg.ReadyTimeout))
	}
}

// readyByAge reports whether the deadline of a starting worker makes it ready.
func (p *Pool) readyByAge(w *worker) bool { return w.command && !w.step && p.cfg.ReadyAfter > 0 }

// executed begins the age of a command, which may have waited for its file.
func (p *Pool) executed(now Time, w *worker, ready bool) {
	w.step = false
	switch {
	case w.state != StateStarting:
	case ready:
		p.becomeReady(now, w)
	case p.readyByAge(w):
		p.startReadyTimeout(now, w)
	}
}

// becomeReady sends a worker the signals that were held for it. Before it was
// ready, they would have killed it, or it would have missed them. The message of
// a worker that was killed comes too late.
func (p *Pool) becomeReady(now Time, w *worker) {
	if w.ready || w.disconnected || w.isStandby() || w.state == StateKilled {
		return
	}
	w.ready = true
	w.slot.strays = 0
	p.clearDeadline(w)
	p.transition(w, StateReady, 0)
	if w.state == StateReady {
		w.readyAt = now
		p.takeOver(now, w)
		p.startLifetime(now, w)
	}
	for _, sig := range w.held {
		if w.state < StateKilled {
			p.send(w, sig)
		}
	}
	w.held = nil
}
