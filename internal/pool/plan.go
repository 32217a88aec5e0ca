package pool

// Plan returns the next step at now. It changes nothing except that it
// remembers the spawn that it requests. The caller should apply a Tick before
// it.
func (p *Pool) Plan(now Time) Step {
	fillAt, fill := p.nextFill(now)
	step := Step{Ordinal: p.ordinal + 1, Wake: Sooner(p.nextDue(), fillAt)}
	p.asked = nil
	at, s := p.nextSpawn(now)
	switch {
	case fill != nil && fillAt <= now: // the next event fills a slot from a standby
	case s != nil && at <= now:
		p.asked, p.askedGen = s, p.genFor(s)
		step.SpawnDue, step.Slot, step.Gen = true, s.index, p.askedGen
	case s != nil:
		step.Wake = Sooner(step.Wake, at)
	}
	if at := p.nextSurplus(); at != Never && at <= now {
		step.Survey = true
	} else {
		step.Wake = Sooner(step.Wake, at)
	}
	return step
}

// nextDue returns when runDue has something to do, except for standbys.
func (p *Pool) nextDue() Time {
	at := Sooner(p.rollSettlesAt(), p.lingerEnds())
	if p.deadlines.len() > 0 {
		at = Sooner(at, p.deadlines.first().deadline)
	}
	if p.ages.len() > 0 {
		at = Sooner(at, p.ages.first().recycleAt)
	}
	if p.leftovers.len() > 0 {
		at = Sooner(at, p.leftovers.first().due())
	}
	for i := range p.schedules {
		if len(p.schedules[i].left) > 0 {
			at = Sooner(at, p.schedules[i].next)
		}
	}
	return at
}

// nextSpawn returns the slot that is spawned next, and when. Empty slots come
// first, then replacements, then standbys.
func (p *Pool) nextSpawn(now Time) (Time, *slot) {
	if !p.running {
		return Never, nil
	}
	at, next := p.nextEmpty(now)
	if p.mayReplace() {
		at, next = p.orPaced(now, at, next, p.toReplace.first())
	}
	if p.mayStandBy() {
		at, next = p.orPaced(now, at, next, p.standby.waiting.first())
	}
	if next == nil {
		return Never, nil
	}
	return max(at, p.failedUntil), next
}

// orPaced returns next, or s instead if next is not due yet and s is due
// sooner.
func (p *Pool) orPaced(now, at Time, next, s *slot) (Time, *slot) {
	if next != nil && at <= now {
		return at, next
	}
	if t := p.paced(s); next == nil || t < at {
		return t, s
	}
	return at, next
}

// nextEmpty returns the empty slot that gets a worker next, and when it is due.
// A spawn for it may have to wait longer.
func (p *Pool) nextEmpty(now Time) (at Time, next *slot) {
	if !p.running || !p.wantsWorkers() {
		return Never, nil
	}
	if p.vacant.len() > 0 {
		next = p.vacant.first()
		at = p.paced(next)
	}
	// SpawnInterval spaces the starts of many workers. A slot whose worker
	// crashed has a delay of its own, so SpawnInterval does not hold it back.
	// Nor does a crash push the others back, or one slot in a crash loop would
	// keep them empty.
	if p.urgent.len() > 0 && (next == nil || p.urgent.first().due < max(at, now)) {
		next = p.urgent.first()
		at = next.due
	}
	return at, next
}

// paced returns when a slot is due that SpawnInterval holds back.
func (p *Pool) paced(s *slot) Time {
	if p.lastPaced == Never {
		return s.due
	}
	return max(s.due, after(p.lastPaced, p.cfg.SpawnInterval))
}
