package pool

import "time"

// dumpTime is how long a stuck worker has to dump its stacks before it is
// killed.
const dumpTime = 500 * time.Millisecond

// recycle queues a worker for replacement. It keeps running until its
// replacement is ready. So it costs nothing to wait: a limit that each worker
// reaches at once must not consist of spawns.
func (p *Pool) recycle(now Time, w *worker) {
	if w.recycling || w.state >= StateStopping || w.isStandby() || w.exiting {
		return
	}
	if at := after(w.slot.spawnedAt, min(youngLife, p.cfg.ErrRespawn)); at > now {
		p.recycleLater(w, at)
		return
	}
	w.recycling = true
	p.enqueueStale(w.slot)
}

// startLifetime sets when a worker that has become ready is recycled. Up to 20
// % is taken off randomly, so that workers that started together are not
// recycled together.
func (p *Pool) startLifetime(now Time, w *worker) {
	if p.cfg.Lifetime <= 0 {
		return
	}
	p.recycleLater(w, after(now, p.cfg.Lifetime-time.Duration(p.cfg.Jitter()*float64(p.cfg.Lifetime/5))))
}

// recycleLater sets when a worker is recycled, if it is not earlier already.
func (p *Pool) recycleLater(w *worker, at Time) {
	switch {
	case !p.ages.contains(w):
		w.recycleAt = at
		p.ages.push(w)
	case at < w.recycleAt:
		w.recycleAt = at
		p.ages.fix(w)
	}
}

func newAgeHeap() heap[*worker] {
	return newHeap(
		func(a, b *worker) bool { return a.recycleAt < b.recycleAt },
		func(w *worker) *int { return &w.agePlace },
	)
}

func (p *Pool) runAges(now Time) {
	for p.ages.len() > 0 && p.ages.first().recycleAt <= now {
		w := p.ages.first()
		p.ages.remove(w)
		p.recycle(now, w)
	}
}

// dump makes a stuck worker dump its stacks, and limits the time that it has
// for that.
func (p *Pool) dump(now Time, w *worker) {
	if w.stuck || w.state >= StateStopping || w.isStandby() || w.exiting {
		return
	}
	p.clearDeadline(w)
	w.stuck = true
	p.send(w, p.cfg.Dump)
	p.setDeadline(w, now+dumpTime)
}
