package pool

import (
	"slices"
	"syscall"
	"time"
)

// schedule is a signal that goes to one worker after another.
type schedule struct {
	sig       syscall.Signal
	immediate bool
	again     bool
	received  syscall.Signal
	interval  time.Duration
	next      Time
	left      []int // ordinals of the workers that have not got it yet
}

func (p *Pool) signalAll(now Time, ev *Event) {
	for w := p.oldest; w != nil; w = w.next {
		p.signal(now, w, ev.Sig, ev.Immediate)
	}
	p.afterSignal(ev.Sig)
}

// afterSignal updates the pool as a whole after a signal to all workers,
// staggered or not.
func (p *Pool) afterSignal(sig syscall.Signal) {
	if sig == p.cfg.Stop { // after a stop of all workers the next generation gets the slots
		p.roll.failed = false
	}
	// Leftover processes serve no requests, so there is nothing to stagger.
	if sig == syscall.SIGKILL {
		p.killLeftovers()
	}
}

// killAll kills every worker and all leftover processes.
func (p *Pool) killAll() {
	for w := p.oldest; w != nil; w = w.next {
		p.kill(w, ReasonStopped)
	}
	p.killLeftovers()
}

// signal sends sig to one worker, or holds it until the worker is ready. The
// stop signal is never held. A worker that is not ready yet simply ends by it.
// If the worker was ready and that message is late, later signals are held as
// well. Nothing is held for a command: whether it is ready says nothing about
// its signal handlers.
func (p *Pool) signal(now Time, w *worker, sig syscall.Signal, immediate bool) {
	switch {
	case w.state >= StateKilled:
	case sig == syscall.SIGKILL:
		p.kill(w, ReasonStopped)
	case sig == p.cfg.Stop:
		p.stop(now, w, sig)
	case w.ready || immediate || w.command:
		p.send(w, sig)
	case !slices.Contains(w.held, sig):
		w.held = append(w.held, sig)
	}
}

// stop sends a worker sig, which stops it.
func (p *Pool) stop(now Time, w *worker, sig syscall.Signal) {
	p.clearDeadline(w)
	p.transition(w, StateStopping, 0)
	if p.cfg.StopTimeout >= 0 {
		p.setDeadline(w, after(now, p.cfg.StopTimeout))
	}
	w.held = nil
	p.sendStop(w, sig)
}

func (p *Pool) kill(w *worker, why Reason) {
	if w.state >= StateKilled {
		return
	}
	p.deadlines.remove(w)
	w.killReason = why
	p.transition(w, StateKilled, why)
	p.sendGroup(w, syscall.SIGKILL)
}

func newDeadlineHeap() heap[*worker] {
	return newHeap(
		func(a, b *worker) bool { return a.deadline < b.deadline },
		func(w *worker) *int { return &w.deadlinePlace },
	)
}

// setDeadline sets when a worker is killed. An earlier deadline stays in force:
// a second stop signal grants no more time.
func (p *Pool) setDeadline(w *worker, t Time) {
	switch {
	case !p.deadlines.contains(w):
		w.deadline = t
		p.deadlines.push(w)
	case t < w.deadline:
		w.deadline = t
		p.deadlines.fix(w)
	}
}

// clearDeadline ends the time in which a worker must become ready, or must exit
// after Exiting. A worker that is disconnected, stuck or stopping keeps its
// deadline.
func (p *Pool) clearDeadline(w *worker) {
	if (w.state == StateStarting || w.exiting) && w.state < StateStopping && !w.disconnected && !w.stuck {
		p.deadlines.remove(w)
	}
}

// Timed reports whether a deadline runs. The caller should then wake up often
// enough to notice that the system was frozen; see Event.Frozen.
func (p *Pool) Timed() bool {
	return p.deadlines.len() > 0 || p.leftovers.len() > 0 && p.cfg.StopTimeout >= 0
}

// postpone moves all deadlines by the time in which the system was frozen, by a
// suspend, a cgroup freezer or SIGSTOP: workers could not use it. The order of
// the deadlines stays.
func (p *Pool) postpone(d time.Duration) {
	for _, w := range p.deadlines.items {
		w.deadline = after(w.deadline, d)
	}
	for _, l := range p.leftovers.items {
		l.checkAt = after(l.checkAt, d)
		if l.deadline != Never {
			l.deadline = after(l.deadline, d)
		}
	}
}

// deadlineOf returns when a worker will be killed, or Never.
func (p *Pool) deadlineOf(w *worker) Time {
	if !p.deadlines.contains(w) {
		return Never
	}
	return w.deadline
}

// runDeadlines kills the workers whose deadline has passed, or makes them ready
// if they become ready by their age. Each worker has a deadline of its own, so a
// staggered stop is not cut short for the last workers. A worker that is still
// running after Exiting gets the stop signal.
//
// A worker is not killed for being late until all messages that were sent
// before its deadline have been applied: a manager that was suspended may find
// that the worker has become ready in the meantime.
func (p *Pool) runDeadlines(now, readUpTo Time) {
	for p.Overdue(now) {
		why := ReasonStopTimeout
		w := p.deadlines.first()
		switch {
		case w.exiting && w.state < StateStopping && !w.stuck:
			p.stop(now, w, p.cfg.Stop)
			continue
		case w.stuck:
			why = ReasonStuck
		case w.state < StateStopping && w.deadline > readUpTo:
			return
		case w.state == StateStarting && !w.disconnected && p.readyByAge(w):
			p.becomeReady(now, w)
			continue
		case w.state < StateStopping:
			why = ReasonReadyTimeout
		}
		p.kill(w, why)
	}
}

// forward schedules a staggered signal. An older schedule for the same received
// signal is dropped, since the new one reaches its workers too. The new one
// keeps its pace, so three reloads in a row do not stop three workers at once.
// Schedules for different signals run side by side.
func (p *Pool) forward(now Time, ev *Event) {
	s := schedule{
		sig: ev.Sig, immediate: ev.Immediate, again: ev.Again, received: ev.Received,
		interval: ev.Interval, next: now,
	}
	// Workers that are stopping come last: repeated stops must not keep the
	// others from getting the first one.
	var stopping []int
	for w := p.oldest; w != nil; w = w.next {
		switch {
		case w.isStandby(): // it serves no requests, so there is nothing to stagger
			p.signal(now, w, ev.Sig, ev.Immediate)
		case w.state == StateStopping:
			stopping = append(stopping, w.id)
		default:
			s.left = append(s.left, w.id)
		}
	}
	s.left = append(s.left, stopping...)
	p.schedules = slices.DeleteFunc(p.schedules, func(old schedule) bool {
		if old.received == ev.Received {
			s.next = max(s.next, old.next)
		}
		return old.received == ev.Received
	})
	p.schedules = append(p.schedules, s)
	p.afterSignal(ev.Sig)
}

// runSchedules sends the signals that are due.
func (p *Pool) runSchedules(now Time) {
	if len(p.schedules) == 0 {
		return
	}
	for i := range p.schedules {
		p.runSchedule(now, &p.schedules[i])
	}
	// A schedule that has reached its last worker is kept for one interval, for
	// its pace. It causes no wake-up.
	p.schedules = slices.DeleteFunc(p.schedules, func(s schedule) bool { return len(s.left) == 0 && s.next <= now })
}

// runSchedule passes over workers that are gone, so that the next one gets the
// signal at once.
func (p *Pool) runSchedule(now Time, s *schedule) {
	for len(s.left) > 0 {
		w := p.workers[s.left[0]]
		skip := w == nil || w.state >= StateKilled || s.sig == p.cfg.Stop && w.state == StateStopping && !s.again
		if !skip && s.next > now {
			return
		}
		s.left = s.left[1:]
		if !skip {
			p.signal(now, w, s.sig, s.immediate)
			s.next = after(now, s.interval)
		}
	}
}
