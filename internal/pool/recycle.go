package pool

import "time"

// dumpTime is how long a stuck worker has to dump its stacks before it is
// killed.
const dumpTime = 500 * time.Millisecond

// recycle queues a worker for replacement. It keeps running until its
// replacement is ready.
func (p *Pool) recycle(w *worker) {
	if w.recycling || w.state >= StateStopping || w.isStandby() || w.exiting {
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
	w.recycleAt = after(now, p.cfg.Lifetime-time.Duration(p.cfg.Jitter()*float64(p.cfg.Lifetime/5)))
	p.ages.push(w)
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
		p.recycle(w)
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
