//go:build unix

package pool

import "testing"

func TestAWorkerThatIsNotReadyInTimeIsKilledAndPaced(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout = 5 * sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(5*sec - 1)
	if n := s.count(Starting); n != 1 {
		t.Fatalf("%d workers starting before the time is over, want 1", n)
	}
	s.pass(1)
	if n := s.count(Killed); n != 1 {
		t.Fatalf("%d workers killed when the time is over, want 1", n)
	}
	s.do(Event{Kind: Exited, ID: 1, Killed: true})
	if s.gone[1] != NeverReady {
		t.Errorf("reason %d, want never ready", s.gone[1])
	}
}

func TestAReadyWorkerHasAllTheTime(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout = 5 * sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(4 * sec)
	s.do(Event{Kind: Reached, ID: 1})
	s.pass(3600 * sec)
	if n := s.count(Ready); n != 1 {
		t.Errorf("%d workers ready, want 1", n)
	}
}

func TestAStartingWorkerToldToStopHasTheStopsTime(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout, cfg.StopTimeout = 5*sec, 20*sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(4 * sec)
	s.do(Event{Kind: Signal, Sig: term})
	s.pass(20*sec - 1)
	if n := s.count(Stopping); n != 1 {
		t.Fatalf("%d workers stopping, want 1", n)
	}
	s.pass(1)
	s.do(Event{Kind: Exited, ID: 1, Killed: true})
	if s.gone[1] != Overdue {
		t.Errorf("reason %d, want that it did not stop in time", s.gone[1])
	}
}

// A loop that was held up says first what happened meanwhile, and then that time has passed: who is ready by then is not killed.
func TestNewsBeforeDeadlines(t *testing.T) {
	cfg := usual(3)
	cfg.ReadyTimeout = 5 * sec
	cfg.Jitter = func() float64 { return 0 }
	p := New(cfg)
	for step := p.Handle(0, Event{Kind: Begin}); step.Ask; {
		step = p.Handle(0, Event{Kind: Spawned})
	}
	killed := func(step Step) (ids []int) {
		for _, e := range step.Effects {
			if e.Kind == Change && e.To == Killed {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	var ids []int
	for _, ev := range []Event{{Kind: Halt}, {Kind: Begin}, {Kind: Reached, ID: 1}, {Kind: Reached, ID: 3}} {
		ids = append(ids, killed(p.Handle(6*sec, ev))...)
	}
	wantAll(t, "killed before the last news", ids)
	want(t, "overdue", p.Overdue(6*sec), true)
	wantAll(t, "killed by a Tick before which nobody was heard", killed(p.Handle(6*sec, Event{Kind: Tick, Heard: 5*sec - 1})))
	wantAll(t, "killed by a Tick", killed(p.Handle(6*sec, Event{Kind: Tick, Heard: 5 * sec})), 2)
}
