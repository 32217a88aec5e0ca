package pool

import (
	"math"
	"time"
)

// youngLife bounds a young life: it is shorter than this or than ErrRespawn,
// whichever is longer.
const youngLife = time.Second

// longestDelay bounds a growing delay, unless ErrRespawn itself is longer.
const longestDelay = time.Minute

// freeCleanEnds is how many young clean ends in a row cost nothing. A worker
// that found no work and exited should be replaced at once. A program that only
// exits should not be spawned more than a hundred times a second.
const freeCleanEnds = 2

// A spawn that fails must not be retried in a tight loop, even without backoff.
const (
	unpacedFailure        = 100 * time.Millisecond
	unpacedFailureLongest = time.Second
)

// isYoung reports whether a life is so short that its end counts towards the
// delay of its slot.
func (p *Pool) isYoung(life time.Duration) bool { return life < max(youngLife, p.cfg.ErrRespawn) }

// pace sets when a slot may be spawned again after a worker that exited by
// itself.
func (p *Pool) pace(now Time, s *slot, life time.Duration, clean bool) {
	e := p.cfg.ErrRespawn
	if e < 0 {
		return
	}
	if life/10 >= s.delay {
		s.badEnds, s.delay = 0, 0
	}
	if !p.isYoung(life) {
		s.cleanEnds = 0
		return
	}
	if clean {
		s.cleanEnds++
		if s.cleanEnds > freeCleanEnds {
			s.due = max(now, after(s.spawnedAt, e))
		}
		return
	}
	s.cleanEnds = 0
	s.delay = doubled(e, s.badEnds, max(longestDelay, e))
	s.badEnds++
	// Jitter goes both ways, so that slots that crashed together do not keep
	// crashing together. No delay is shorter than ErrRespawn.
	shortest, longest := max(e, s.delay-s.delay/5), after(s.delay, s.delay/5)
	delay := shortest + time.Duration(p.cfg.Jitter()*float64(longest-shortest))
	s.due = max(now, after(s.spawnedAt, delay))
}

// resetDelay lets a new generation start with the shortest delay. The
// generation may run another configuration than the workers that crashed. A
// slot still keeps to ErrRespawn, or many reloads in a row would defeat the
// backoff.
func (p *Pool) resetDelay(s *slot) {
	if s.badEnds == 0 && s.cleanEnds == 0 {
		return
	}
	s.forgetEnds()
	s.due = min(s.due, after(s.spawnedAt, max(p.cfg.ErrRespawn, 0)))
	if s.queue != nil {
		s.queue.fix(s)
	}
}

func (s *slot) forgetEnds() { s.badEnds, s.cleanEnds, s.delay = 0, 0, 0 }

// spawnFailed delays all spawns, because the system or the program's file
// causes the failure and not a slot. A failure of the new generation in a roll
// fails that generation instead: the spawns of the one before it have worked.
func (p *Pool) spawnFailed(now Time) {
	if p.roll.direction == forward && p.askedGen >= p.roll.rollGen {
		p.failRoll(now, 0, p.askedGen, 0)
	} else {
		p.recordFailure(now)
		p.spawnFailures++
		p.failedAt, p.failedUntil = now, after(now, p.spawnFailureDelay(p.spawnFailures))
	}
	p.effects = append(p.effects, Effect{Kind: RetryDelay, For: max(0, p.failedUntil-now)})
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

// recordFailure notes a failure. A crash loop is too many of them within
// CrashWindow while no worker is ready.
func (p *Pool) recordFailure(now Time) {
	n := p.cfg.CrashLoop
	if n <= 0 || p.crashLooped {
		return
	}
	p.failureTimes = append(p.failureTimes, now)
	if len(p.failureTimes) > n {
		p.failureTimes = p.failureTimes[1:]
	}
	if len(p.failureTimes) == n && now-p.failureTimes[0] <= p.cfg.CrashWindow && p.size.ready == 0 {
		p.crashLooped = true
		p.effects = append(p.effects, Effect{Kind: CrashLooped})
	}
}

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
