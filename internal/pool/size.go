package pool

import "container/heap"

// Sizing by load keeps at least MinSpare workers idle, as far as Max allows, and at most MaxSpare. Those that start count
// as idle, those that were told to stop and replacements do not count. It is that of Parallel::Prefork::SpareWorkers,
// save that no busy worker is ever stopped for it (its defect D10), and that it acts when a status changes.
type size struct {
	alive int      // workers that have not been told to stop
	busy  int      // of these
	ready int      // of these
	idle  idleHeap // those ready that are not busy and hold a slot
	until Time     // no worker is stopped before
}

func (p *Pool) adapts() bool { return p.cfg.MinSpare > 0 }

// spare is how many workers are idle, or will be.
func (p *Pool) spare() int { return p.size.alive - (p.roll.surging - p.roll.dying) - p.size.busy }

// wants tells whether empty slots are to be filled.
func (p *Pool) wants() bool { return !p.adapts() || p.spare() < p.cfg.MinSpare }

// status notes that a worker is busy, or no longer.
func (p *Pool) status(w *worker, busy bool) {
	if w.busy == busy || w.state >= Stopping || w.waits() || w.yielded {
		return
	}
	w.busy = busy
	if busy {
		p.size.busy++
	} else {
		p.size.busy--
	}
	p.settle(w)
}

// settle keeps the idle workers in their heap, where anybody asks for them.
func (p *Pool) settle(w *worker) {
	idle := p.adapts() && w.state == Ready && !w.busy && w.slot.worker == w
	switch {
	case idle && w.idleAt < 0:
		heap.Push(&p.size.idle, w)
	case !idle && w.idleAt >= 0:
		heap.Remove(&p.size.idle, w.idleAt)
	}
}

// shrink stops what is idle beyond MaxSpare, the youngest first, one each SpawnInterval. Who was idle some time ago may be busy by
// now, so it is called only when all have just been looked at.
func (p *Pool) shrink(now Time) {
	for p.adapts() && p.running && p.spare() > p.cfg.MaxSpare && len(p.size.idle) > 0 && p.size.until <= now {
		p.tell(now, p.size.idle[0], p.cfg.Stop)
		if p.cfg.SpawnInterval > 0 {
			p.size.until = after(now, p.cfg.SpawnInterval)
		}
	}
}

// shrinkAt is when shrink has something to do next.
func (p *Pool) shrinkAt() Time {
	if p.adapts() && p.running && p.spare() > p.cfg.MaxSpare && len(p.size.idle) > 0 {
		return p.size.until
	}
	return Never
}

// idleHeap has the youngest worker first.
type idleHeap []*worker

func (h idleHeap) Len() int           { return len(h) }
func (h idleHeap) Less(i, j int) bool { return h[i].id > h[j].id }
func (h idleHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].idleAt, h[j].idleAt = i, j
}
func (h *idleHeap) Push(x any) {
	w := x.(*worker)
	w.idleAt = len(*h)
	*h = append(*h, w)
}
func (h *idleHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.idleAt = -1
	return w
}
