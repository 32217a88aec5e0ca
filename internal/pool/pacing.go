package pool

import (
	"math"
	"time"
)

// youngLife bounds a young life: it is shorter than this or than ErrRespawn,
// whichever is longer. With a list, the delay that its end costs takes the place
// of ErrRespawn.
const youngLife = time.Second

// longestDelay bounds a growing delay, unless ErrRespawn itself is longer.
const longestDelay = time.Minute

// freeCleanEnds is how many young clean ends in a row cost nothing. A worker
// that found no work and exited should be replaced at once. A program that only
// exits should not: each spawn of one that puts itself into the background leaves
// another process behind.
const freeCleanEnds = 2

// A program file that is open for writing is tried again soon, for busyTime: a
// deploy is writing it, or a process that was just forked has not closed it yet.
const (
	firstBusyDelay   = 20 * time.Millisecond
	longestBusyDelay = 80 * time.Millisecond
	busyTime         = 2 * time.Second
)

// A spawn that fails must not be retried in a tight loop, even without backoff.
const (
	unpacedFailure        = 100 * time.Millisecond
	unpacedFailureLongest = time.Second
)

// List is the delays of the first, second … young bad end of a slot. The last one
// repeats; an empty list is no delay.
type List []time.Duration

// at returns the delay of the n-th end in a row, from 0.
func (l List) at(n int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(n, len(l)-1)]
}

// isYoung reports whether a life is so short that its end counts towards the
// delay of its slot: with a list, shorter than the delay that it would cost.
func (p *Pool) isYoung(s *slot, life time.Duration) bool {
	limit := p.firstDelay()
	if p.cfg.Backoff != nil {
		limit = p.cfg.Backoff.at(max(s.badEnds, s.cleanEnds-freeCleanEnds))
	}
	return life < max(youngLife, limit)
}

// firstDelay is the shortest delay of a slot; negative means that there are none.
func (p *Pool) firstDelay() time.Duration {
	if p.cfg.Backoff != nil {
		return p.cfg.Backoff.at(0)
	}
	return p.cfg.ErrRespawn
}

// pace sets when a slot may be spawned again after a worker that exited by
// itself. A life that ended early, before the worker was ready, is young
// whatever its length.
func (p *Pool) pace(now Time, s *slot, life time.Duration, early, clean bool) {
	if p.cfg.Backoff != nil {
		p.paceByList(now, s, life, early, clean)
		return
	}
	e := p.cfg.ErrRespawn
	if life/10 >= s.delay && !early {
		s.badEnds, s.delay = 0, 0
	}
	if !p.isYoung(s, life) && !early {
		s.cleanEnds = 0
		return
	}
	if clean {
		s.cleanEnds++
		if s.cleanEnds > freeCleanEnds && e >= 0 {
			p.delay(now, s, doubled(e, s.cleanEnds-freeCleanEnds-1, max(longestDelay, e)))
		}
		return
	}
	s.cleanEnds = 0
	if e < 0 {
		return
	}
	s.delay = doubled(e, s.badEnds, max(longestDelay, e))
	s.badEnds++
	p.delay(now, s, s.delay)
}

// paceByList is pace with the delays of a list. They are exact: a list is for an
// administrator who expects to see its numbers.
func (p *Pool) paceByList(now Time, s *slot, life time.Duration, early, clean bool) {
	ends := s.badEnds
	if clean {
		ends = s.cleanEnds - freeCleanEnds
	}
	delay := time.Duration(0)
	if ends >= 0 {
		delay = p.cfg.Backoff.at(ends)
	}
	if !early && life >= max(youngLife, delay) {
		s.forgetEnds()
		return
	}
	if clean {
		s.cleanEnds++
	} else {
		s.cleanEnds = 0
		s.badEnds++
	}
	s.due = max(now, after(s.spawnedAt, delay))
}

// delay sets when a slot may be spawned again, by a delay since its last spawn.
// Jitter goes both ways, so that slots that crashed together do not keep
// crashing together. No delay is shorter than ErrRespawn.
func (p *Pool) delay(now Time, s *slot, delay time.Duration) {
	shortest, longest := max(p.cfg.ErrRespawn, delay-delay/5), after(delay, delay/5)
	jitter := time.Duration(p.cfg.Jitter() * float64(longest-shortest))
	s.due = max(now, after(s.spawnedAt, shortest+jitter))
}

// resetDelay lets a new generation start with the shortest delay. The
// generation may run another configuration than the workers that crashed. A
// slot still keeps to the first delay, or many reloads in a row would defeat the
// backoff.
func (p *Pool) resetDelay(s *slot) {
	if s.badEnds == 0 && s.cleanEnds == 0 {
		return
	}
	s.forgetEnds()
	s.due = min(s.due, after(s.spawnedAt, max(p.firstDelay(), 0)))
	if s.queue != nil {
		s.queue.fix(s)
	}
}

func (s *slot) forgetEnds() { s.badEnds, s.cleanEnds, s.delay = 0, 0, 0 }

// spawnFailed delays all spawns, because the system or the program's file
// causes the failure and not a slot. A failure of the new generation in a roll
// fails that generation instead: the spawns of the one before it have worked.
//
// A busy program file delays only the slot, for up to busyTime.
func (p *Pool) spawnFailed(now Time, ev *Event) {
	if ev.Busy && p.asked != nil && p.retryBusy(now, p.asked) {
		return
	}
	if p.roll.direction == forward && p.askedGen >= p.roll.rollGen {
		p.failRoll(now, 0, p.askedGen, 0)
	} else {
		// A shortage of the machine proves nothing about the program.
		if p.cfg.CrashLoop > 0 || !ev.Shortage {
			p.recordFailure(now, true)
		}
		p.spawnFailures++
		p.failedAt, p.failedUntil = now, after(now, p.spawnFailureDelay(p.spawnFailures))
	}
	p.effects = append(p.effects, Effect{Kind: RetryDelay, For: max(0, p.failedUntil-now)})
}

// retryBusy delays a slot whose program file is busy, and reports whether it
// may still be tried again.
func (p *Pool) retryBusy(now Time, s *slot) bool {
	if s.busyTries == 0 {
		s.busySince = now
	}
	left := after(s.busySince, busyTime) - now
	if left <= 0 {
		return false
	}
	delay := min(doubled(firstBusyDelay, s.busyTries, longestBusyDelay), left)
	s.busyTries++
	s.due = now + delay
	s.queue.fix(s)
	p.use(s)
	p.effects = append(p.effects, Effect{Kind: RetryDelay, Slot: s.index, For: delay, Repeated: s.busyTries > 1})
	return true
}

// spawnFailureDelay returns the delay after the given number of failed spawns
// in a row.
func (p *Pool) spawnFailureDelay(failures int) time.Duration {
	e, longest := p.cfg.ErrRespawn, max(longestDelay, p.cfg.ErrRespawn)
	if e <= 0 {
		e, longest = unpacedFailure, unpacedFailureLongest
	}
	return doubled(e, failures-1, longest)
}

// provenLife is how long a worker must have been ready to show that the program
// can work. Until then UnprovenLoop applies.
const provenLife = time.Second

// unprovenTime is how long failures must last to be a crash loop by
// UnprovenLoop: a service that workers need may be away for two seconds at
// boot, and without backoff each slot fails many times in that time.
const unprovenTime = 2500 * time.Millisecond

// recordFailure notes a failure, or one of every slot if all of them fail. A
// crash loop is too many failures within a time while no worker is ready.
func (p *Pool) recordFailure(now Time, all bool) {
	if p.firstFailure == Never {
		p.firstFailure = now
	}
	n, window := p.crashLimit(now)
	if n <= 0 || p.crashLooped {
		return
	}
	times := 1
	if all && p.cfg.CrashLoop <= 0 {
		times = p.triedSlots()
	}
	for range times {
		p.failureTimes = append(p.failureTimes, now)
	}
	extra := max(0, len(p.failureTimes)-n)
	for now-p.failureTimes[extra] > window {
		extra++
	}
	p.failureTimes = p.failureTimes[extra:]
	if len(p.failureTimes) < n || p.size.ready > 0 {
		return
	}
	if p.cfg.CrashLoop <= 0 && now-p.firstFailure < unprovenTime {
		return
	}
	p.crashLooped = true
	p.effects = append(p.effects, Effect{Kind: CrashLooped, Failures: n, For: window})
}

// crashLimit returns how many failures within which time are a crash loop; zero
// means that none are. Until the program has worked, the time is long enough
// for workers that only fail by ReadyTimeout.
func (p *Pool) crashLimit(now Time) (n int, window time.Duration) {
	switch {
	case p.cfg.CrashLoop > 0:
		return p.cfg.CrashLoop, p.cfg.CrashWindow
	case p.cfg.UnprovenLoop <= 0 || p.hasWorked(now):
		return 0, 0
	}
	for range p.cfg.UnprovenLoop {
		window = after(window, max(0, p.cfg.ReadyTimeout))
	}
	return p.cfg.UnprovenLoop * p.triedSlots(), max(window, p.cfg.CrashWindow)
}

// mostTriedSlots bounds the failures that are kept.
const mostTriedSlots = 1000

// triedSlots returns how many slots the pool tries to fill while no worker
// works.
func (p *Pool) triedSlots() int {
	n := p.max - p.closed.empty
	if p.sizesDynamically() {
		n = min(n, p.cfg.MinSpare)
	}
	return min(n, mostTriedSlots)
}

// hasWorked reports whether a worker was ever ready for longer than provenLife.
func (p *Pool) hasWorked(now Time) bool {
	if p.proven {
		return true
	}
	for w := p.oldest; w != nil; w = w.next {
		if w.hasWorked(now) {
			return true
		}
	}
	return false
}

func (w *worker) hasWorked(now Time) bool { return w.readyAt != Never && now-w.readyAt > provenLife }

// after returns t + d, at most the greatest Time, so that no sum overflows into
// the past.
func after(t Time, d time.Duration) Time {
	if d > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + d
}

// doubled returns base doubled n times, at most longest.
func doubled(base time.Duration, n int, longest time.Duration) time.Duration {
	d := base
	for ; n > 0 && d < longest; n-- {
		d *= 2
	}
	return min(d, longest)
}
