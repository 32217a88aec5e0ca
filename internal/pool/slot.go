package pool

// newSlotHeap returns a heap of slots in the order in which they are due, and
// then of their index. A slot is in at most one of these heaps.
func newSlotHeap() heap[*slot] {
	return newHeap(
		func(a, b *slot) bool { return a.due < b.due || a.due == b.due && a.index < b.index },
		func(s *slot) *int { return &s.place },
	)
}

func (s *slot) enqueue(queue *heap[*slot]) {
	s.queue = queue
	queue.push(s)
}

// dequeue takes a slot out of the heap that it is in, if any.
func (s *slot) dequeue() {
	if s.queue != nil {
		s.queue.remove(s)
		s.queue = nil
	}
}

// enqueueEmpty queues an empty slot for a worker.
func (p *Pool) enqueueEmpty(s *slot, urgent bool) {
	switch {
	case s.index == noSlot:
		s.enqueue(&p.standby.waiting)
	case urgent:
		s.enqueue(&p.urgent)
	default:
		s.enqueue(&p.vacant)
	}
}

// vacate fills an empty slot: with its replacement if that may serve already,
// from a standby, or by a spawn.
func (p *Pool) vacate(now Time, s *slot, urgent bool) {
	switch {
	case s.index >= p.max:
	case s.replacement != nil && p.mayServeEarly(s.replacement):
		p.promoteReplacement(s)
	case p.staysEmpty(s):
	case s.index != noSlot && p.fill(now, s):
	default:
		p.enqueueEmpty(s, urgent)
	}
}

// resize sets the number of slots in use.
func (p *Pool) resize(now Time, n int) {
	old := p.max
	p.max = n
	if n == 0 {
		p.stopStandbys(now)
	}
	for i := old; i < min(n, len(p.slots)); i++ {
		s := p.slots[i]
		if s.worker == nil && !p.staysEmpty(s) {
			p.enqueueEmpty(s, false)
		}
		p.recount(s)
	}
	for i := n; i < min(old, len(p.slots)); i++ {
		p.closeSlot(now, p.slots[i])
		p.recount(p.slots[i])
	}
	if n > old {
		p.unusedSince = now
		p.addSlot()
	}
}

// addSlot makes sure that the last slot was never used and is not held, if there
// may be one more. The slots after it exist only as a number: the target may be millions,
// and each costs nothing until the one before it gets its first worker.
func (p *Pool) addSlot() {
	for n := len(p.slots); n < p.max && (n == 0 || p.slots[n-1].used || p.closed.held[n-1]); n++ {
		s := &slot{index: n, due: p.unusedSince}
		p.slots = append(p.slots, s)
		if p.recount(s); !p.staysEmpty(s) {
			p.enqueueEmpty(s, false)
		}
	}
}

// use notes that a slot, or a place of a standby, is tried for the first time.
func (p *Pool) use(s *slot) {
	if s.used {
		return
	}
	s.used = true
	if s.index == noSlot {
		p.addPlace()
	} else {
		p.addSlot()
	}
}

// unused returns how many slots below max do not exist yet.
func (p *Pool) unused() int { return max(0, p.max-len(p.slots)) }

// usedSlots returns the slots below max that exist.
func (p *Pool) usedSlots() []*slot { return p.slots[:min(p.max, len(p.slots))] }

// closeSlot stops the workers of a slot, which keep it until they are reaped.
func (p *Pool) closeSlot(now Time, s *slot) {
	s.dequeue()
	for _, w := range []*worker{s.replacement, s.worker} {
		if w != nil && w.state < StateStopping {
			p.stop(now, w, p.cfg.Stop)
		}
	}
}
