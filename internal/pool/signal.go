package pool

import (
	"container/heap"
	"slices"
	"syscall"
	"time"
)

// schedule is a signal on its way to one worker after another.
type schedule struct {
	sig      syscall.Signal
	now      bool
	again    bool
	received syscall.Signal
	interval time.Duration
	next     Time
	left     []int // the ordinals of those that have not had it
}

// signal sends sig to one worker, or holds it until the worker is ready. The stop signal is never held: a
// worker that is not ready yet simply ends by it, or was ready and the news of that is late: what comes for it then is held, too.
func (p *Pool) signal(now Time, w *worker, sig syscall.Signal, immediate bool) {
	switch {
	case w.state >= Killed:
	case sig == syscall.SIGKILL:
		p.kill(w, Stopped)
	case sig == p.cfg.Stop:
		p.tell(now, w, sig)
	case w.reached || immediate:
		p.send(w, sig)
	case !slices.Contains(w.held, sig):
		w.held = append(w.held, sig)
	}
}

// tell tells a worker to stop, by sig.
func (p *Pool) tell(now Time, w *worker, sig syscall.Signal) {
	p.endStart(w)
	p.transition(w, Stopping)
	if p.cfg.StopTimeout >= 0 {
		p.killAt(w, after(now, p.cfg.StopTimeout))
	}
	w.held = nil
	p.sendGroup(w, sig)
	if p.cfg.Continue != 0 {
		p.sendGroup(w, p.cfg.Continue)
	}
}

// killAt sets when a worker is killed that has not ended by then. What was set earlier and comes sooner stands: to be told
// to stop once more gives no more time.
func (p *Pool) killAt(w *worker, t Time) {
	switch {
	case w.at < 0:
		w.deadline = t
		heap.Push(&p.deadlines, w)
	case t < w.deadline:
		w.deadline = t
		heap.Fix(&p.deadlines, w.at)
	}
}

// due is when a worker will be killed, or Never.
func (w *worker) due() Time {
	if w.at < 0 {
		return Never
	}
	return w.deadline
}

// endStart ends the time that a worker has to become ready, or to end after it yielded. One that is lost, or stuck, keeps its
// time to end.
func (p *Pool) endStart(w *worker) {
	if (w.state == Starting || w.yielded) && w.state < Stopping && w.at >= 0 && !w.lost && !w.stuck {
		heap.Remove(&p.deadlines, w.at)
	}
}

func (p *Pool) send(w *worker, sig syscall.Signal) {
	p.out = append(p.out, Effect{Kind: Send, ID: w.id, Slot: w.slot.index, Sig: sig})
}

// sendGroup sends sig to the worker's whole process group, where that is asked for.
func (p *Pool) sendGroup(w *worker, sig syscall.Signal) {
	p.out = append(p.out, Effect{Kind: Send, ID: w.id, Slot: w.slot.index, Sig: sig, Group: p.cfg.Group})
}

func (p *Pool) kill(w *worker, why Reason) {
	if w.state >= Killed {
		return
	}
	if w.at >= 0 {
		heap.Remove(&p.deadlines, w.at)
	}
	w.killed = why
	p.transition(w, Killed)
	p.out[len(p.out)-1].Reason = why
	p.sendGroup(w, syscall.SIGKILL)
}

// schedule begins to forward a signal, staggered. What is left of an older one for the same received signal is
// dropped, since the new one reaches those workers too, and its pace goes on: three reloads in a row do not take three
// workers at once. One for another received signal goes on beside it.
func (p *Pool) schedule(now Time, ev Event) {
	s := schedule{
		sig: ev.Sig, now: ev.Now, again: ev.Again, received: ev.For,
		interval: ev.Interval, next: now,
	}
	// Those that have been told to stop come last: a repeated stop must not keep the others from hearing the first.
	var told []int
	for w := p.oldest; w != nil; w = w.next {
		switch {
		case w.waits(): // it serves nobody, so that there is nothing to stagger
			p.signal(now, w, ev.Sig, ev.Now)
		case w.state == Stopping:
			told = append(told, w.id)
		default:
			s.left = append(s.left, w.id)
		}
	}
	s.left = append(s.left, told...)
	p.schedules = slices.DeleteFunc(p.schedules, func(old schedule) bool {
		if old.received == ev.For {
			s.next = max(s.next, old.next)
		}
		return old.received == ev.For
	})
	p.schedules = append(p.schedules, s)
}

// runSchedules sends what is due. A worker that is gone meanwhile is passed over and the next one gets the signal (D12).
func (p *Pool) runSchedules(now Time) {
	if len(p.schedules) == 0 {
		return
	}
	for i := range p.schedules {
		s := &p.schedules[i]
		for len(s.left) > 0 {
			w := p.workers[s.left[0]]
			skip := w == nil || w.state >= Killed || s.sig == p.cfg.Stop && w.state == Stopping && !s.again
			if !skip && s.next > now {
				break
			}
			s.left = s.left[1:]
			if !skip {
				p.signal(now, w, s.sig, s.now)
				s.next = after(now, s.interval)
			}
		}
	}
	// One that has nobody left to reach is kept until its last pause is over, for the pace, and makes no wake-up.
	p.schedules = slices.DeleteFunc(p.schedules, func(s schedule) bool { return len(s.left) == 0 && s.next <= now })
}

// runDeadlines tells those to stop that yielded and live on. It kills the lost, those that did not become ready in time, and the workers that were told to stop StopTimeout ago, each on its own clock: a staggered stop is not
// cut short for those that were told last (D8).
//
// Nobody is killed for not being ready whose time was not over when the caller has last listened: one that was held up says first
// what happened meanwhile, and that may be that the worker is ready.
func (p *Pool) runDeadlines(now, heard Time) {
	for p.Overdue(now) {
		why := Overdue
		w := p.deadlines[0]
		switch {
		case w.yielded && w.state < Stopping && !w.stuck:
			p.tell(now, w, p.cfg.Stop)
			continue
		case w.stuck:
			why = Stuck
		case w.state < Stopping && w.deadline > heard:
			return
		case w.state < Stopping:
			why = NeverReady
		}
		p.kill(w, why)
	}
}

// workerHeap orders workers by the time at which they will be killed.
type workerHeap []*worker

func (h workerHeap) Len() int           { return len(h) }
func (h workerHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }
func (h workerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *workerHeap) Push(x any) {
	w := x.(*worker)
	w.at = len(*h)
	*h = append(*h, w)
}
func (h *workerHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.at = -1
	return w
}
