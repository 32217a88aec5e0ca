//go:build unix

package pool

import "testing"

func TestReadyTimeoutKillsAndDelays(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout = 5 * sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(5*sec - 1)
	want(t, "starting before the timeout", s.count(StateStarting), 1)
	s.pass(1)
	want(t, "killed at the timeout", s.count(StateKilled), 1)
	s.do(Event{Kind: Exited, ID: 1, Killed: true})
	want(t, "reason", s.gone[1], ReasonReadyTimeout)
}

func TestReadyWorkerHasNoReadyTimeout(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout = 5 * sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(4 * sec)
	s.ready(1)
	s.pass(3600 * sec)
	want(t, "ready", s.count(StateReady), 1)
}

func TestStartingWorkerThatIsStoppedHasStopTimeout(t *testing.T) {
	cfg := usual(1)
	cfg.ReadyTimeout, cfg.StopTimeout = 5*sec, 20*sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(4 * sec)
	s.do(Event{Kind: Signal, Sig: term})
	s.pass(20*sec - 1)
	want(t, "stopping", s.count(StateStopping), 1)
	s.pass(1)
	s.do(Event{Kind: Exited, ID: 1, Killed: true})
	want(t, "reason", s.gone[1], ReasonStopTimeout)
}

// A manager that was held up applies first the messages that were sent in the
// meantime, and then a Tick. A worker that has become ready is not killed.
func TestMessagesAreAppliedBeforeReadyTimeouts(t *testing.T) {
	cfg := usual(3)
	cfg.ReadyTimeout = 5 * sec
	cfg.Jitter = func() float64 { return 0 }
	p := New(cfg)
	p.Apply(0, Event{Kind: Begin})
	for p.Plan(0).SpawnDue {
		p.Apply(0, Event{Kind: Spawned})
	}
	killed := func(effects []Effect) (ids []int) {
		for _, e := range effects {
			if e.Kind == Change && e.To == StateKilled {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	var ids []int
	for _, ev := range []Event{{Kind: Halt}, {Kind: Begin}, {Kind: Ready, ID: 1}, {Kind: Ready, ID: 3}} {
		ids = append(ids, killed(p.Apply(6*sec, ev))...)
		p.Plan(6 * sec)
	}
	wantAll(t, "killed before the last message", ids)
	want(t, "overdue", p.Overdue(6*sec), true)
	early := Event{Kind: Tick, ReadUpTo: 5*sec - 1}
	wantAll(t, "killed by a Tick before the messages were read", killed(p.Apply(6*sec, early)))
	wantAll(t, "killed by a Tick after that", killed(p.Apply(6*sec, Event{Kind: Tick, ReadUpTo: 5 * sec})), 2)
}
