package pool

// size is the state of dynamic sizing. It keeps at least MinSpare workers idle,
// as far as Max allows, and at most MaxSpare. Starting workers count as idle;
// stopping workers and replacements do not count. Unlike
// Parallel::Prefork::SpareWorkers it never stops a busy worker, and it acts
// when a status changes.
type size struct {
	alive int           // workers that are not stopping
	busy  int           // of these
	ready int           // of these
	idle  heap[*worker] // of these: ready, not busy, and holding a slot; youngest first
	until Time          // no worker is stopped before
}

func (p *Pool) sizesDynamically() bool { return p.cfg.MinSpare > 0 }

// spare returns how many workers are idle or will be.
func (p *Pool) spare() int { return p.size.alive - (p.roll.surging - p.roll.dying) - p.size.busy }

// wantsWorkers reports whether empty slots should be filled.
func (p *Pool) wantsWorkers() bool { return !p.sizesDynamically() || p.spare() < p.cfg.MinSpare }

func (p *Pool) setBusy(w *worker, busy bool) {
	if w.busy == busy || w.state >= StateStopping || w.isStandby() || w.exiting {
		return
	}
	w.busy = busy
	if busy {
		p.size.busy++
	} else {
		p.size.busy--
	}
	p.updateIdle(w)
}

// updateIdle keeps the heap of idle workers.
func (p *Pool) updateIdle(w *worker) {
	idle := p.sizesDynamically() && w.state == StateReady && !w.busy && w.slot.worker == w
	switch {
	case !idle:
		p.size.idle.remove(w)
	case !p.size.idle.contains(w):
		p.size.idle.push(w)
	}
}

func (p *Pool) hasSurplus() bool {
	return p.sizesDynamically() && p.running && p.spare() > p.cfg.MaxSpare && p.size.idle.len() > 0
}

// stopSurplus stops idle workers beyond MaxSpare, the youngest first, one each
// SpawnInterval. A worker that was idle some time ago may be busy by now, so
// this must follow a survey of all workers.
func (p *Pool) stopSurplus(now Time) {
	for p.hasSurplus() && p.size.until <= now {
		p.stop(now, p.size.idle.first(), p.cfg.Stop)
		if p.cfg.SpawnInterval > 0 {
			p.size.until = after(now, p.cfg.SpawnInterval)
		}
	}
}

// nextSurplus returns when stopSurplus has something to do, or Never.
func (p *Pool) nextSurplus() Time {
	if p.hasSurplus() {
		return p.size.until
	}
	return Never
}

func newIdleHeap() heap[*worker] {
	return newHeap(
		func(a, b *worker) bool { return a.id > b.id },
		func(w *worker) *int { return &w.idlePlace },
	)
}
