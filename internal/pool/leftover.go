package pool

import (
	"syscall"
	"time"
)

// The kernel does not report the end of a process group, so the caller must
// check it. The first checks come soon: usually the leftover processes got the
// stop signal with the worker and exit shortly after it.
const (
	firstCheck      = 10 * time.Millisecond
	longestInterval = 500 * time.Millisecond
)

// leftover is the process group of a worker that was reaped. It holds no slot
// and does not count as a worker.
type leftover struct {
	w        *worker
	deadline Time // when it is killed, or Never
	checkAt  Time
	interval time.Duration // before the last check
	place    int           // in Pool.leftovers
}

func (l *leftover) due() Time { return Sooner(l.deadline, l.checkAt) }

func newLeftoverHeap() heap[*leftover] {
	return newHeap(
		func(a, b *leftover) bool { return a.due() < b.due() },
		func(l *leftover) *int { return &l.place },
	)
}

// addLeftover keeps the process group of a worker that was in state and would
// have been killed at the deadline. Processes that got the stop signal with the
// worker get no more time than it had.
func (p *Pool) addLeftover(now Time, w *worker, state State, deadline Time) {
	if state == StateKilled { // its group was killed with it
		p.sendGroup(w, syscall.SIGKILL)
		p.changeLeftover(w, StateKilled, StateKilled)
		return
	}
	l := &leftover{w: w, deadline: deadline, checkAt: now + firstCheck, interval: firstCheck}
	p.changeLeftover(w, StateNone, StateStopping)
	if state < StateStopping {
		l.deadline = Never
		if p.cfg.StopTimeout >= 0 {
			l.deadline = after(now, p.cfg.StopTimeout)
		}
		p.sendStop(w, p.cfg.Stop)
	}
	p.leftovers.push(l)
	p.leftoverOf[w.id] = l
}

// runLeftovers checks or kills the groups that are due. A group that was killed
// is forgotten: a process that cannot end even then, or whose parent does not
// reap it, would be awaited in vain.
func (p *Pool) runLeftovers(now Time) {
	for p.leftovers.len() > 0 && p.leftovers.first().due() <= now {
		l := p.leftovers.first()
		if l.deadline != Never && l.deadline <= now {
			p.endLeftover(l, StateKilled)
			continue
		}
		p.effects = append(p.effects, Effect{Kind: CheckGroup, ID: l.w.id, Slot: l.w.slot.index})
		l.interval = min(2*l.interval, longestInterval)
		l.checkAt = now + l.interval
		p.leftovers.fix(l)
	}
}

func (p *Pool) killLeftovers() {
	for p.leftovers.len() > 0 {
		p.endLeftover(p.leftovers.first(), StateKilled)
	}
}

func (p *Pool) groupGone(id int) {
	if l := p.leftoverOf[id]; l != nil {
		p.endLeftover(l, StateGone)
	}
}

// endLeftover forgets a group, which is killed first if to is StateKilled.
func (p *Pool) endLeftover(l *leftover, to State) {
	p.leftovers.remove(l)
	delete(p.leftoverOf, l.w.id)
	if to == StateKilled {
		p.sendGroup(l.w, syscall.SIGKILL)
	}
	p.changeLeftover(l.w, StateStopping, to)
}

func (p *Pool) changeLeftover(w *worker, from, to State) {
	p.effects = append(p.effects, Effect{Kind: Leftover, ID: w.id, Slot: w.slot.index, From: from, To: to})
}
