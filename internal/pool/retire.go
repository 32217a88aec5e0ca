package pool

import (
	"container/heap"
	"time"
)

// dumpTime is how long a worker that is stuck has to say where, before it is killed.
const dumpTime = 500 * time.Millisecond

// retire has a worker replaced, which goes on until its replacement is ready.
func (p *Pool) retire(w *worker) {
	if w.retiring || w.state >= Stopping || w.waits() || w.yielded {
		return
	}
	w.retiring = true
	p.queue(w.slot)
}

// age sets when a worker that has become ready retires. Up to a fifth is taken off, by chance, so that workers that
// started together do not retire together.
func (p *Pool) age(now Time, w *worker) {
	if p.cfg.Lifetime <= 0 {
		return
	}
	w.retireAt = after(now, p.cfg.Lifetime-time.Duration(p.cfg.Jitter()*float64(p.cfg.Lifetime/5)))
	heap.Push(&p.ages, w)
}

func (p *Pool) runAges(now Time) {
	for len(p.ages) > 0 && p.ages[0].retireAt <= now {
		p.retire(heap.Pop(&p.ages).(*worker))
	}
}

// stuck has a worker say where it is, and kills it then.
func (p *Pool) stuck(now Time, w *worker) {
	if w.stuck || w.state >= Stopping || w.waits() || w.yielded {
		return
	}
	p.endStart(w)
	w.stuck = true
	p.send(w, p.cfg.Dump)
	p.killAt(w, now+dumpTime)
}

// failed notes a failure, and gives up where there have been too many in a row without a worker that is ready.
func (p *Pool) failed(now Time) {
	n := p.cfg.CrashLoop
	if n <= 0 || p.surrendered {
		return
	}
	p.crashes = append(p.crashes, now)
	if len(p.crashes) > n {
		p.crashes = p.crashes[1:]
	}
	if len(p.crashes) == n && now-p.crashes[0] <= p.cfg.CrashWindow && p.size.ready == 0 {
		p.surrendered = true
		p.out = append(p.out, Effect{Kind: Surrender})
	}
}

// ageHeap orders workers by the time at which they retire.
type ageHeap []*worker

func (h ageHeap) Len() int           { return len(h) }
func (h ageHeap) Less(i, j int) bool { return h[i].retireAt < h[j].retireAt }
func (h ageHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].ageAt, h[j].ageAt = i, j
}
func (h *ageHeap) Push(x any) {
	w := x.(*worker)
	w.ageAt = len(*h)
	*h = append(*h, w)
}
func (h *ageHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.ageAt = -1
	return w
}
