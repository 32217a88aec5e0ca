//go:build unix

package pool

import (
	"testing"
	"time"
)

// toldTimes are the times at which each worker was first told to stop.
func (s *sim) toldTimes(told map[int]Time) {
	for _, w := range s.workers {
		if w.toldAt != Never {
			told[w.id] = w.toldAt
		}
	}
}

func TestT4AStaggeredStopLeavesTwoThenOneThenNone(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = sec
	s := begun(t, cfg)
	s.until(3500 * ms)
	s.reachAll()
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: term, For: term, Interval: 2 * sec})
	s.obey()
	var left []int
	for _, d := range []time.Duration{500 * ms, 2 * sec, 2 * sec} {
		s.pass(d)
		s.obey()
		left = append(left, len(s.workers))
	}
	wantAll(t, "workers left after 0.5, 2.5, 4.5 s", left, 2, 1, 0)
	want(t, "Wake", s.wake, Never)
}

func TestP22P24RollingByTermKeepsCapacity(t *testing.T) {
	for _, takes := range []time.Duration{0, 100 * ms, 499 * ms} {
		t.Run("workers take "+takes.String()+" to stop", func(t *testing.T) {
			s := begun(t, usual(4))
			s.until(sec)
			s.do(Event{Kind: Halt})
			s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: 500 * ms})
			s.do(Event{Kind: Begin})
			told := map[int]Time{}
			fewest, most := 4, 0
			for s.now < 4*sec {
				s.toldTimes(told)
				for _, id := range s.ids() {
					if w := s.workers[id]; w.state == Stopping && s.now >= w.toldAt+takes {
						fewest = min(fewest, s.count(Ready))
						s.leave(id)
						s.reachAll()
					}
				}
				fewest, most = min(fewest, s.count(Ready)), max(most, len(s.workers))
				s.pass(ms)
			}
			want(t, "fewest ready", fewest, 3)
			want(t, "most workers", most, 4)
			for i, at := range secs(1, 1.5, 2, 2.5) {
				want(t, "told", told[i+1], at)
			}
			want(t, "workers of the first generation told", len(told), 4)
			for _, w := range s.workers {
				want(t, "generation", w.gen, 2)
			}
		})
	}
}

func TestP22WorkersSpawnedLaterAreNotTouched(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})
	s.obey()
	s.pass(10 * sec)
	s.obey()
	wantAll(t, "workers", s.ids(), 3, 4)
	want(t, "told to stop", s.count(Stopping), 0)
}

func TestD12AWorkerThatEndsDuringAStaggeredRunIsPassedOver(t *testing.T) {
	s := begun(t, usual(4))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: sec})
	wantAll(t, "first", s.sent(usr1), 1)
	s.leave(2)
	s.pass(sec)
	wantAll(t, "after a second", s.sent(usr1), 3)
	s.leave(4)
	want(t, "Wake with nobody left", s.wake, Never)
}

func TestD12AWorkerAlreadyToldIsPassedOver(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Resize, N: 2})
	s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})
	wantAll(t, "first", s.sent(term), 1)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "Wake with all told", s.wake, 30*sec)
	want(t, "told", s.count(Stopping), 3)
}

func TestD12AKilledWorkerIsPassedOver(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Resize, N: 1})
	s.pass(30 * sec)
	want(t, "killed", s.count(Killed), 1)
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: sec})
	wantAll(t, "sent", s.sent(usr1), 1)
	want(t, "Wake with nobody left", s.wake, Never)
}

func TestD6AStaggeredSignalWithoutWorkersDoesNothing(t *testing.T) {
	s := begun(t, usual(0))
	want(t, "effects", len(s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})), 0)
	want(t, "Wake", s.wake, Never)
}

func TestD8AStaggeredStopIsNotCollapsedByTheEscalation(t *testing.T) {
	cfg := usual(4)
	cfg.StopTimeout = 3 * sec
	s := begun(t, cfg)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: term, For: term, Interval: 2 * sec})
	killed := map[Time][]int{}
	told := map[int]Time{}
	for s.wake != Never {
		s.until(s.wake)
		s.toldTimes(told)
		if ids := s.sent(kill); len(ids) > 0 {
			killed[s.now] = ids
		}
	}
	for i := range 4 {
		at := time.Duration(i) * 2 * sec
		want(t, "told", told[i+1], at)
		wantAll(t, "killed 3 s later", killed[at+3*sec], i+1)
	}
}

func TestAStaggeredSignalLateIsStillOneByOne(t *testing.T) {
	s := begun(t, usual(4))
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: sec})
	s.now = 10 * sec // a hook took so long
	s.do(Event{})
	wantAll(t, "sent", s.sent(usr1), 2)
	want(t, "Wake", s.wake, 11*sec)
}

func TestP6AnIntervalOfZeroMeansAllAtOnce(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, For: hup})
	wantAll(t, "sent", s.sent(usr1), 1, 2, 3)
	want(t, "Wake", s.wake, Never)
}

func TestTwoSchedulesForDifferentSignalsRunSideBySide(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, For: usr1, Interval: 2 * sec})
	s.do(Event{Kind: Forward, Sig: usr2, For: usr2, Interval: 3 * sec})
	type sent struct {
		at Time
		id int
	}
	one, two := []sent{{0, 1}}, []sent{{0, 1}}
	for s.wake != Never {
		s.until(s.wake)
		for _, id := range s.sent(usr1) {
			one = append(one, sent{s.now, id})
		}
		for _, id := range s.sent(usr2) {
			two = append(two, sent{s.now, id})
		}
	}
	wantAll(t, "first schedule", one, sent{0, 1}, sent{2 * sec, 2}, sent{4 * sec, 3})
	wantAll(t, "second schedule", two, sent{0, 1}, sent{3 * sec, 2}, sent{6 * sec, 3})
}

func TestANewScheduleForTheSameSignalTakesTheOldOnesPlace(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: 2 * sec})
	s.pass(2 * sec)
	wantAll(t, "the old one reached", s.sent(usr1), 2)
	s.do(Event{Kind: Forward, Sig: usr2, For: hup, Interval: sec})
	wantAll(t, "the pace of the old one goes on", s.sent(usr2))
	s.pass(2 * sec)
	wantAll(t, "then comes", s.sent(usr2), 1)
	s.pass(10 * sec)
	wantAll(t, "of the old one comes", s.sent(usr1))
	wantAll(t, "of the new one", s.sent(usr2), 2, 3)
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: sec})
	wantAll(t, "long after, the first at once", s.sent(usr1), 1)
}

func TestP24ReloadsInARowTakeOneWorkerAtATime(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})
	wantAll(t, "the first takes", s.sent(term), 1)
	for range 2 {
		s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})
		wantAll(t, "one more at the same moment takes", s.sent(term))
	}
	s.pass(sec - 1)
	wantAll(t, "before the pause is over", s.sent(term))
	s.pass(1)
	wantAll(t, "then", s.sent(term), 2)
}

func TestD15AStaggeredStopForwardedAgainReachesThoseAlreadyTold(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := begun(t, usual(3))
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Forward, Sig: term, For: term, Interval: sec})
		s.pass(sec)
		s.do(Event{Kind: Forward, Sig: term, For: term, Interval: sec, Again: again})
		first := s.sent(term)
		s.pass(5 * sec)
		if again {
			// First the one that has not heard of it: TERM after TERM must not keep it from that.
			wantAll(t, "again", append(first, s.sent(term)...), 3, 1, 2)
		} else {
			wantAll(t, "only the rest", append(first, s.sent(term)...), 3)
		}
	}
}

func TestP22TheScheduleOutlivesTheGeneration(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: usr1, For: hup, Interval: sec})
	s.do(Event{Kind: Begin})
	s.pass(sec)
	s.do(Event{Kind: Halt})
	s.pass(sec)
	wantAll(t, "last", s.sent(usr1), 3)
}
