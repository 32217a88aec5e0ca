//go:build unix

package pool

import (
	"testing"
	"time"
)

// noteStops notes when each worker got its first stop signal.
func (s *sim) noteStops(stopped map[int]Time) {
	for _, w := range s.workers {
		if w.stoppedAt != Never {
			stopped[w.id] = w.stoppedAt
		}
	}
}

func TestT4StaggeredStopLeavesTwoThenOneThenNone(t *testing.T) {
	cfg := usual(3)
	cfg.SpawnInterval = sec
	s := begun(t, cfg)
	s.until(3500 * ms)
	s.readyAll()
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: term, Received: term, Interval: 2 * sec})
	s.exitStopped()
	var left []int
	for _, d := range []time.Duration{500 * ms, 2 * sec, 2 * sec} {
		s.pass(d)
		s.exitStopped()
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
			s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: 500 * ms})
			s.do(Event{Kind: Begin})
			stopped := map[int]Time{}
			fewest, most := 4, 0
			for s.now < 4*sec {
				s.noteStops(stopped)
				fewest = min(fewest, s.replaceStopped(takes), s.count(StateReady))
				most = max(most, len(s.workers))
				s.pass(ms)
			}
			want(t, "fewest ready", fewest, 3)
			want(t, "most workers", most, 4)
			for i, at := range secs(1, 1.5, 2, 2.5) {
				want(t, "stopped", stopped[i+1], at)
			}
			want(t, "workers of the first generation stopped", len(stopped), 4)
			for _, w := range s.workers {
				want(t, "generation", w.gen, 2)
			}
		})
	}
}

// replaceStopped ends the workers whose stop signal is that old and makes their
// replacements ready. It returns the fewest ready workers in between.
func (s *sim) replaceStopped(ago time.Duration) int {
	s.t.Helper()
	fewest := s.count(StateReady)
	for _, id := range s.ids() {
		if w := s.workers[id]; w.state == StateStopping && s.now >= w.stoppedAt+ago {
			fewest = min(fewest, s.count(StateReady))
			s.exitZero(id)
			s.readyAll()
		}
	}
	return fewest
}

func TestP22ForwardSkipsWorkersSpawnedLater(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})
	s.exitStopped()
	s.pass(10 * sec)
	s.exitStopped()
	wantAll(t, "workers", s.ids(), 3, 4)
	want(t, "stopping", s.count(StateStopping), 0)
}

func TestD12ForwardSkipsWorkerThatExits(t *testing.T) {
	s := begun(t, usual(4))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: sec})
	wantAll(t, "first", s.sent(usr1), 1)
	s.exitZero(2)
	s.pass(sec)
	wantAll(t, "after a second", s.sent(usr1), 3)
	s.exitZero(4)
	want(t, "Wake with no worker left", s.wake, Never)
}

func TestD12ForwardSkipsWorkerThatIsStopping(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Resize, N: 2})
	s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})
	wantAll(t, "first", s.sent(term), 1)
	s.do(Event{Kind: Resize, N: 1})
	want(t, "Wake with all stopping", s.wake, 30*sec)
	want(t, "stopping", s.count(StateStopping), 3)
}

func TestD12ForwardSkipsKilledWorker(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Resize, N: 1})
	s.pass(30 * sec)
	want(t, "killed", s.count(StateKilled), 1)
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: sec})
	wantAll(t, "sent", s.sent(usr1), 1)
	want(t, "Wake with no worker left", s.wake, Never)
}

func TestD6ForwardWithoutWorkersDoesNothing(t *testing.T) {
	s := begun(t, usual(0))
	want(t, "effects", len(s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})), 0)
	want(t, "Wake", s.wake, Never)
}

func TestD8StaggeredStopHasOneDeadlinePerWorker(t *testing.T) {
	cfg := usual(4)
	cfg.StopTimeout = 3 * sec
	s := begun(t, cfg)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: term, Received: term, Interval: 2 * sec})
	killed := map[Time][]int{}
	stopped := map[int]Time{}
	for s.wake != Never {
		s.until(s.wake)
		s.noteStops(stopped)
		if ids := s.sent(kill); len(ids) > 0 {
			killed[s.now] = ids
		}
	}
	for i := range 4 {
		at := time.Duration(i) * 2 * sec
		want(t, "stopped", stopped[i+1], at)
		wantAll(t, "killed 3 s later", killed[at+3*sec], i+1)
	}
}

func TestForwardThatIsLateStaysStaggered(t *testing.T) {
	s := begun(t, usual(4))
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: sec})
	s.now = 10 * sec // a hook was slow
	s.do(Event{})
	wantAll(t, "sent", s.sent(usr1), 2)
	want(t, "Wake", s.wake, 11*sec)
}

func TestP6ForwardWithoutIntervalReachesAllAtOnce(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup})
	wantAll(t, "sent", s.sent(usr1), 1, 2, 3)
	want(t, "Wake", s.wake, Never)
}

func TestForwardsOfDifferentSignalsRunSideBySide(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, Received: usr1, Interval: 2 * sec})
	s.do(Event{Kind: Forward, Sig: usr2, Received: usr2, Interval: 3 * sec})
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

func TestForwardSupersedesTheLastOneForTheSameSignal(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: 2 * sec})
	s.pass(2 * sec)
	wantAll(t, "by the old schedule", s.sent(usr1), 2)
	s.do(Event{Kind: Forward, Sig: usr2, Received: hup, Interval: sec})
	wantAll(t, "by the new one, within the old interval", s.sent(usr2))
	s.pass(2 * sec)
	wantAll(t, "by the new one, after it", s.sent(usr2), 1)
	s.pass(10 * sec)
	wantAll(t, "by the old one, later", s.sent(usr1))
	wantAll(t, "by the new one, later", s.sent(usr2), 2, 3)
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: sec})
	wantAll(t, "long after, at once", s.sent(usr1), 1)
}

func TestP24ReloadsInARowStopOneWorkerAtATime(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})
	wantAll(t, "stopped by the first", s.sent(term), 1)
	for range 2 {
		s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})
		wantAll(t, "stopped by another at the same moment", s.sent(term))
	}
	s.pass(sec - 1)
	wantAll(t, "stopped within the interval", s.sent(term))
	s.pass(1)
	wantAll(t, "stopped after it", s.sent(term), 2)
}

func TestD15SecondStaggeredStopReachesStoppingWorkers(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := begun(t, usual(3))
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Forward, Sig: term, Received: term, Interval: sec})
		s.pass(sec)
		s.do(Event{Kind: Forward, Sig: term, Received: term, Interval: sec, Again: again})
		first := s.sent(term)
		s.pass(5 * sec)
		if again {
			// The worker without a stop signal comes first: repeated stops must
			// not delay its first one.
			wantAll(t, "again", append(first, s.sent(term)...), 3, 1, 2)
		} else {
			wantAll(t, "only the others", append(first, s.sent(term)...), 3)
		}
	}
}

func TestP22ForwardOutlivesItsGeneration(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Forward, Sig: usr1, Received: hup, Interval: sec})
	s.do(Event{Kind: Begin})
	s.pass(sec)
	s.do(Event{Kind: Halt})
	s.pass(sec)
	wantAll(t, "last", s.sent(usr1), 3)
}
