package pool

import (
	"container/heap"
	"syscall"
	"time"
)

// Nobody tells when the last process of a group has ended, so somebody has to look, soon at first: as a rule what is left
// when the worker is reaped was told to stop with it, and is about to end.
const (
	firstLook   = 10 * time.Millisecond
	longestLook = 500 * time.Millisecond
)

// rest is what is left of the process group of a worker that was reaped. It holds no slot and is not counted as a worker.
type rest struct {
	w        *worker
	deadline Time // it is killed then, or Never
	look     Time // somebody looks whether it is gone
	pause    time.Duration
	at       int // in rests
}

func (r *rest) due() Time { return Sooner(r.deadline, r.look) }

// Rests is how many workers that are gone have left something of their process groups that is neither gone nor killed.
func (p *Pool) Rests() int { return len(p.rests) }

// leave takes over what a worker has left, which was in state and would have been killed at the deadline. What was told to
// stop with the worker has no more time than the worker had.
func (p *Pool) leave(now Time, w *worker, state State, deadline Time) {
	if state == Killed { // so was its group, which is dying
		p.sendGroup(w, syscall.SIGKILL)
		p.out = append(p.out, Effect{Kind: Rest, ID: w.id, Slot: w.slot.index, From: Killed, To: Killed})
		return
	}
	r := &rest{w: w, deadline: deadline, look: now + firstLook, pause: firstLook}
	p.out = append(p.out, Effect{Kind: Rest, ID: w.id, Slot: w.slot.index, To: Stopping})
	if state < Stopping {
		r.deadline = Never
		if p.cfg.StopTimeout >= 0 {
			r.deadline = after(now, p.cfg.StopTimeout)
		}
		p.sendGroup(w, p.cfg.Stop)
		if p.cfg.Continue != 0 {
			p.sendGroup(w, p.cfg.Continue)
		}
	}
	heap.Push(&p.rests, r)
	p.left[w.id] = r
}

// runRests does what is due: to look, or to kill. What is killed is not waited for: a process that cannot end even then, or
// that nobody waits for, would be waited for in vain.
func (p *Pool) runRests(now Time) {
	for len(p.rests) > 0 && p.rests[0].due() <= now {
		r := p.rests[0]
		if r.deadline != Never && r.deadline <= now {
			p.endRest(r, Killed)
			continue
		}
		p.out = append(p.out, Effect{Kind: Look, ID: r.w.id, Slot: r.w.slot.index})
		r.pause = min(2*r.pause, longestLook)
		r.look = now + r.pause
		heap.Fix(&p.rests, r.at)
	}
}

func (p *Pool) killRests() {
	for len(p.rests) > 0 {
		p.endRest(p.rests[0], Killed)
	}
}

func (p *Pool) endRest(r *rest, how State) {
	heap.Remove(&p.rests, r.at)
	delete(p.left, r.w.id)
	if how == Killed {
		p.sendGroup(r.w, syscall.SIGKILL)
	}
	p.out = append(p.out, Effect{Kind: Rest, ID: r.w.id, Slot: r.w.slot.index, From: Stopping, To: how})
}

// restHeap orders rests by the time at which something is to be done about them.
type restHeap []*rest

func (h restHeap) Len() int           { return len(h) }
func (h restHeap) Less(i, j int) bool { return h[i].due() < h[j].due() }
func (h restHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *restHeap) Push(x any) {
	r := x.(*rest)
	r.at = len(*h)
	*h = append(*h, r)
}
func (h *restHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return r
}
