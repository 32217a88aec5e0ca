//go:build unix

package pool

import (
	"slices"
	"syscall"
	"testing"
)

const (
	term = syscall.SIGTERM
	hup  = syscall.SIGHUP
	usr1 = syscall.SIGUSR1
	usr2 = syscall.SIGUSR2
	kill = syscall.SIGKILL
)

func TestP21ASignalGoesToAllWorkersInOrderOfTheirSpawn(t *testing.T) {
	s := begun(t, usual(4))
	s.leave(2)
	s.do(Event{Kind: Begin})
	s.reachAll()
	s.do(Event{Kind: Signal, Sig: hup})
	wantAll(t, "sent", s.sent(hup), 1, 3, 4, 5)
	want(t, "workers ready", s.count(Ready), 4)
}

func TestSignalsAreHeldForAWorkerUntilItHasReachedStart(t *testing.T) {
	tests := []struct {
		name   string
		before []Event
		now    []syscall.Signal // what the worker gets at once
		later  []syscall.Signal // when it is ready
	}{
		{"in order, one of each", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: hup}, {Kind: Signal, Sig: usr1},
		}, nil, []syscall.Signal{usr1, hup}},
		{"the staggered like the others", []Event{
			{Kind: Forward, Sig: usr2, For: hup, Interval: sec}, {Kind: Signal, Sig: usr1},
		}, nil, []syscall.Signal{usr2, usr1}},
		{"not those that are for now", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: syscall.SIGCONT, Now: true},
		}, []syscall.Signal{syscall.SIGCONT}, []syscall.Signal{usr1}},
		{"not SIGKILL", []Event{{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: kill}}, []syscall.Signal{kill}, nil},
		{"not the stop signal, which drops the others", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: term},
		}, []syscall.Signal{term}, nil},
		// It may have reached Start, and only the news of it be late: then it hears the stop signal as others do.
		{"also for one that was told to stop before that", []Event{
			{Kind: Signal, Sig: term}, {Kind: Signal, Sig: usr1},
		}, []syscall.Signal{term}, []syscall.Signal{usr1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, usual(1))
			s.do(Event{Kind: Begin})
			for _, ev := range tt.before {
				s.do(ev)
			}
			w := s.in(0)
			wantAll(t, "sent while starting", w.got, tt.now...)
			w.got = nil
			s.do(Event{Kind: Reached, ID: w.id})
			wantAll(t, "sent at Start", w.got, tt.later...)
			s.do(Event{Kind: Reached, ID: w.id})
			wantAll(t, "sent when Start is told again", w.got, tt.later...)
		})
	}
}

func TestACommandIsReadyAtOnceAndNothingIsHeldForIt(t *testing.T) {
	s := newSim(t, usual(1))
	s.command = true
	s.do(Event{Kind: Begin})
	want(t, "ready", s.count(Ready), 1)
	s.do(Event{Kind: Lost, ID: 1})
	s.do(Event{Kind: Signal, Sig: usr1})
	wantAll(t, "sent", s.sent(usr1), 1)
	s.pass(sec)
	want(t, "ready", s.count(Ready), 1)
}

func TestToldToStopByAnyPath(t *testing.T) {
	tests := []struct {
		name string
		ev   Event
	}{
		{"signal to all", Event{Kind: Signal, Sig: term}},
		{"forwarded", Event{Kind: Forward, Sig: term, For: hup}},
		{"forwarded, staggered", Event{Kind: Forward, Sig: term, For: hup, Interval: sec}},
		{"surplus", Event{Kind: Resize, N: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := begun(t, usual(1))
			s.until(sec)
			s.do(tt.ev)
			want(t, "change", s.effects[0], Effect{Kind: Change, ID: 1, From: Ready, To: Stopping})
			wantAll(t, "sent", s.sent(term), 1)
			s.pass(30*sec - 1)
			want(t, "stopping", s.count(Stopping), 1)
			wantAll(t, "killed after StopTimeout", kinds(s.pass(1)), Change, Send)
			want(t, "reason", s.in(0).why, Overdue)
			s.exit(1, Event{Killed: true})
			want(t, "end", s.gone[1], Overdue)
		})
	}
}

func kinds(effects []Effect) []EffectKind {
	var ks []EffectKind
	for _, e := range effects {
		ks = append(ks, e.Kind)
	}
	return ks
}

func TestWhyAWorkerEnded(t *testing.T) {
	stop := Event{Kind: Signal, Sig: term}
	tests := []struct {
		name   string
		before []Event
		exit   Event
		want   Reason
	}{
		{"clean", nil, Event{Clean: true}, Finished},
		{"bad", nil, Event{}, Crashed},
		{"killed by somebody else", nil, Event{Killed: true}, Crashed},
		{"told to stop, clean", []Event{stop}, Event{Clean: true}, Stopped},
		{"told to stop, by the signal", []Event{stop}, Event{}, Stopped},
		{"told to stop, killed by somebody else", []Event{stop}, Event{Killed: true}, Stopped},
		{"another signal", []Event{{Kind: Signal, Sig: hup}}, Event{}, Crashed},
		{"signalled with SIGKILL", []Event{{Kind: Signal, Sig: kill}}, Event{Killed: true}, Stopped},
		{"told to stop and signalled with SIGKILL", []Event{stop, {Kind: Signal, Sig: kill}}, Event{Killed: true}, Stopped},
		{"forwarded SIGKILL", []Event{{Kind: Forward, Sig: kill, For: hup}}, Event{Killed: true}, Stopped},
		{"all killed", []Event{stop, {Kind: KillAll}}, Event{Killed: true}, Overdue},
		{"all killed, but it was quicker", []Event{stop, {Kind: KillAll}}, Event{Clean: true}, Stopped},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := begun(t, usual(1))
			s.until(100 * ms)
			for _, ev := range tt.before {
				s.do(ev)
			}
			s.exit(1, tt.exit)
			want(t, "reason", s.gone[1], tt.want)
			// Only what a worker does by itself is paced: a crash this young waits, the end of one told to stop does not.
			want(t, "slot refilled at once", s.in(0) != nil, tt.want != Crashed)
		})
	}
}

func TestLostBeforeStart(t *testing.T) {
	t.Run("and ends within the grace", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Lost, ID: 1})
		s.pass(lostGrace - 1)
		s.crash(1)
		want(t, "reason", s.gone[1], Crashed)
		s.pass(sec)
		wantAll(t, "spawns", s.spawnTimes(0), secs(0, 1)...)
	})
	t.Run("and lives on", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.until(50 * ms)
		s.do(Event{Kind: Lost, ID: 1})
		s.do(Event{Kind: Lost, ID: 1})
		want(t, "Wake", s.wake, 50*ms+lostGrace)
		s.until(50*ms + lostGrace)
		wantAll(t, "killed", s.sent(kill), 1)
		s.exit(1, Event{Killed: true})
		want(t, "reason", s.gone[1], NeverReady)
		s.pass(sec)
		wantAll(t, "spawns", s.spawnTimes(0), secs(0, 1)...)
	})
	t.Run("and ends as it is killed", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Lost, ID: 1})
		s.pass(lostGrace)
		s.crash(1)
		want(t, "reason", s.gone[1], Crashed)
		want(t, "slot refilled at once", s.in(0) != nil, false)
	})
	t.Run("and is said to have reached Start after all", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Lost, ID: 1})
		s.do(Event{Kind: Reached, ID: 1})
		want(t, "ready without a manager", s.count(Ready), 0)
		s.pass(lostGrace)
		want(t, "killed", s.count(Killed), 1)
	})
	t.Run("and is told to stop, with little time", func(t *testing.T) {
		cfg := usual(1)
		cfg.StopTimeout = 50 * ms
		s := newSim(t, cfg)
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Lost, ID: 1})
		s.do(Event{Kind: Signal, Sig: term})
		want(t, "Wake", s.wake, 50*ms)
		s.pass(50 * ms)
		want(t, "killed", s.count(Killed), 1)
	})
	t.Run("after Start it means nothing", func(t *testing.T) {
		s := begun(t, usual(1))
		s.do(Event{Kind: Lost, ID: 1})
		want(t, "Wake", s.wake, Never)
	})
	t.Run("of one told to stop it means nothing", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Signal, Sig: term})
		s.do(Event{Kind: Lost, ID: 1})
		want(t, "Wake", s.wake, 30*sec)
	})
}

func TestD15ARepeatedStopSignalIsForwardedAgainButGivesNoMoreTime(t *testing.T) {
	s := begun(t, usual(2))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: term})
	s.pass(10 * sec)
	s.do(Event{Kind: Signal, Sig: term})
	wantAll(t, "sent again", s.sent(term), 1, 2)
	s.until(30 * sec)
	wantAll(t, "killed", s.sent(kill), 1, 2)
	s.do(Event{Kind: Signal, Sig: term})
	s.do(Event{Kind: KillAll})
	wantAll(t, "all that worker 1 got", s.in(0).got, term, term, kill)
}

func TestD15KillAllKillsWhatIsLeftAtOnce(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: term})
	s.leave(2)
	s.do(Event{Kind: KillAll})
	wantAll(t, "killed", s.sent(kill), 1, 3)
	want(t, "Wake", s.wake, Never)
}

func TestD8WithoutStopTimeoutNobodyIsKilled(t *testing.T) {
	cfg := usual(2)
	cfg.StopTimeout = -1
	s := begun(t, cfg)
	s.do(Event{Kind: Signal, Sig: term})
	want(t, "Wake", s.wake, Never)
}

func TestD8AStopTimeoutOfZeroKillsAtOnce(t *testing.T) {
	cfg := usual(2)
	cfg.StopTimeout = 0
	s := begun(t, cfg)
	s.do(Event{Kind: Forward, Sig: term, For: hup, Interval: sec})
	wantAll(t, "told", s.sent(term), 1)
	wantAll(t, "killed", s.sent(kill), 1)
	s.pass(sec)
	wantAll(t, "killed", s.sent(kill), 2)
}

func TestEventsOfStrangersAndOfTheGoneMeanNothing(t *testing.T) {
	s := begun(t, usual(2))
	s.leave(1)
	for _, kind := range []Kind{Reached, Lost, Exited} {
		for _, id := range []int{-1, 0, 1, 99} {
			want(t, "effects", len(s.do(Event{Kind: kind, ID: id})), 0)
		}
	}
	if got := s.ids(); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("workers: %v", got)
	}
}
