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

func TestP21SignalGoesToAllWorkersInOrder(t *testing.T) {
	s := begun(t, usual(4))
	s.exitZero(2)
	s.do(Event{Kind: Begin})
	s.readyAll()
	s.do(Event{Kind: Signal, Sig: hup})
	wantAll(t, "sent", s.sent(hup), 1, 3, 4, 5)
	want(t, "workers ready", s.count(StateReady), 4)
}

func TestSignalsAreHeldUntilAWorkerIsReady(t *testing.T) {
	tests := []struct {
		name   string
		before []Event
		now    []syscall.Signal // sent at once
		later  []syscall.Signal // sent when the worker is ready
	}{
		{"in order, one of each", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: hup}, {Kind: Signal, Sig: usr1},
		}, nil, []syscall.Signal{usr1, hup}},
		{"staggered ones as well", []Event{
			{Kind: Forward, Sig: usr2, Received: hup, Interval: sec}, {Kind: Signal, Sig: usr1},
		}, nil, []syscall.Signal{usr2, usr1}},
		{"not immediate ones", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: syscall.SIGCONT, Immediate: true},
		}, []syscall.Signal{syscall.SIGCONT}, []syscall.Signal{usr1}},
		{"not SIGKILL", []Event{{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: kill}}, []syscall.Signal{kill}, nil},
		{"not the stop signal, which drops the others", []Event{
			{Kind: Signal, Sig: usr1}, {Kind: Signal, Sig: term},
		}, []syscall.Signal{term}, nil},
		// It may be ready, and its message late: then it gets the stop signal
		// as others do.
		{"also for a worker that is stopping", []Event{
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
			s.do(Event{Kind: Ready, ID: w.id})
			wantAll(t, "sent when ready", w.got, tt.later...)
			s.do(Event{Kind: Ready, ID: w.id})
			wantAll(t, "sent when ready again", w.got, tt.later...)
		})
	}
}

func TestCommandIsReadyAtOnce(t *testing.T) {
	s := newSim(t, usual(1))
	s.command = true
	s.do(Event{Kind: Begin})
	want(t, "ready", s.count(StateReady), 1)
	s.do(Event{Kind: Disconnected, ID: 1})
	s.do(Event{Kind: Signal, Sig: usr1})
	wantAll(t, "sent", s.sent(usr1), 1)
	s.pass(sec)
	want(t, "ready", s.count(StateReady), 1)
}

func TestStoppedByAnyPath(t *testing.T) {
	tests := []struct {
		name string
		ev   Event
	}{
		{"signal to all", Event{Kind: Signal, Sig: term}},
		{"forwarded", Event{Kind: Forward, Sig: term, Received: hup}},
		{"forwarded, staggered", Event{Kind: Forward, Sig: term, Received: hup, Interval: sec}},
		{"surplus", Event{Kind: Resize, N: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := begun(t, usual(1))
			s.until(sec)
			s.do(tt.ev)
			want(t, "change", s.effects[0], Effect{Kind: Change, ID: 1, From: StateReady, To: StateStopping})
			wantAll(t, "sent", s.sent(term), 1)
			s.pass(30*sec - 1)
			want(t, "stopping", s.count(StateStopping), 1)
			wantAll(t, "killed after StopTimeout", kinds(s.pass(1)), Change, Send)
			want(t, "reason", s.in(0).why, ReasonStopTimeout)
			s.exit(1, Event{Killed: true})
			want(t, "end", s.gone[1], ReasonStopTimeout)
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
		{"clean", nil, Event{Clean: true}, ReasonFinished},
		{"bad", nil, Event{}, ReasonCrashed},
		{"killed from outside", nil, Event{Killed: true}, ReasonCrashed},
		{"stopped, clean", []Event{stop}, Event{Clean: true}, ReasonStopped},
		{"stopped, by the signal", []Event{stop}, Event{}, ReasonStopped},
		{"stopped, killed from outside", []Event{stop}, Event{Killed: true}, ReasonStopped},
		{"another signal", []Event{{Kind: Signal, Sig: hup}}, Event{}, ReasonCrashed},
		{"signalled with SIGKILL", []Event{{Kind: Signal, Sig: kill}}, Event{Killed: true}, ReasonStopped},
		{"stopped and signalled with SIGKILL", []Event{stop, {Kind: Signal, Sig: kill}}, Event{Killed: true}, ReasonStopped},
		{"forwarded SIGKILL", []Event{{Kind: Forward, Sig: kill, Received: hup}}, Event{Killed: true}, ReasonStopped},
		{"all killed", []Event{stop, {Kind: KillAll}}, Event{Killed: true}, ReasonStopped},
		{"all killed, but it had exited", []Event{stop, {Kind: KillAll}}, Event{Clean: true}, ReasonStopped},
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
			// Only an end of the worker's own accord delays the slot: a young
			// crash does, a stop does not.
			want(t, "slot refilled at once", s.in(0) != nil, tt.want != ReasonCrashed)
		})
	}
}

func TestDisconnectedBeforeReady(t *testing.T) {
	t.Run("exits within the grace", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.pass(disconnectGrace - 1)
		s.crash(1)
		want(t, "reason", s.gone[1], ReasonCrashed)
		s.pass(sec)
		wantAll(t, "spawns", s.spawnTimes(0), secs(0, 1)...)
	})
	t.Run("keeps running", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.until(50 * ms)
		s.do(Event{Kind: Disconnected, ID: 1})
		s.do(Event{Kind: Disconnected, ID: 1})
		want(t, "Wake", s.wake, 50*ms+disconnectGrace)
		s.until(50*ms + disconnectGrace)
		wantAll(t, "killed", s.sent(kill), 1)
		s.exit(1, Event{Killed: true})
		want(t, "reason", s.gone[1], ReasonReadyTimeout)
		s.pass(sec)
		wantAll(t, "spawns", s.spawnTimes(0), secs(0, 1)...)
	})
	t.Run("crashes as it is killed", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.pass(disconnectGrace)
		s.crash(1)
		want(t, "reason", s.gone[1], ReasonCrashed)
		want(t, "slot refilled at once", s.in(0) != nil, false)
	})
	t.Run("reports ready after that", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.do(Event{Kind: Ready, ID: 1})
		want(t, "ready when disconnected", s.count(StateReady), 0)
		s.pass(disconnectGrace)
		want(t, "killed", s.count(StateKilled), 1)
	})
	t.Run("is stopped with a short StopTimeout", func(t *testing.T) {
		cfg := usual(1)
		cfg.StopTimeout = 50 * ms
		s := newSim(t, cfg)
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.do(Event{Kind: Signal, Sig: term})
		want(t, "Wake", s.wake, 50*ms)
		s.pass(50 * ms)
		want(t, "killed", s.count(StateKilled), 1)
	})
	t.Run("is stopped with a long StopTimeout", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.pass(disconnectGrace / 2)
		s.do(Event{Kind: Signal, Sig: term})
		want(t, "Wake", s.wake, disconnectGrace)
	})
	t.Run("gets stuck", func(t *testing.T) {
		cfg := usual(1)
		cfg.Dump = dumpSig
		s := newSim(t, cfg)
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Disconnected, ID: 1})
		s.do(Event{Kind: Stuck, ID: 1})
		want(t, "Wake", s.wake, disconnectGrace)
	})
	t.Run("ready before", func(t *testing.T) {
		s := begun(t, usual(1))
		s.do(Event{Kind: Disconnected, ID: 1})
		want(t, "Wake", s.wake, Never)
	})
	t.Run("stopping before", func(t *testing.T) {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		s.do(Event{Kind: Signal, Sig: term})
		s.do(Event{Kind: Disconnected, ID: 1})
		want(t, "Wake", s.wake, 30*sec)
	})
}

func TestD15SecondStopSignalGivesNoMoreTime(t *testing.T) {
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
	wantAll(t, "all signals of worker 1", s.in(0).got, term, term, kill)
}

func TestD15KillAllKillsAtOnce(t *testing.T) {
	s := begun(t, usual(3))
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Signal, Sig: term})
	s.exitZero(2)
	s.do(Event{Kind: KillAll})
	wantAll(t, "killed", s.sent(kill), 1, 3)
	want(t, "Wake", s.wake, Never)
}

func TestD8NoKillWithoutStopTimeout(t *testing.T) {
	cfg := usual(2)
	cfg.StopTimeout = -1
	s := begun(t, cfg)
	s.do(Event{Kind: Signal, Sig: term})
	want(t, "Wake", s.wake, Never)
}

func TestD8StopTimeoutOfZeroKillsAtOnce(t *testing.T) {
	cfg := usual(2)
	cfg.StopTimeout = 0
	s := begun(t, cfg)
	s.do(Event{Kind: Forward, Sig: term, Received: hup, Interval: sec})
	wantAll(t, "stopped", s.sent(term), 1)
	wantAll(t, "killed", s.sent(kill), 1)
	s.pass(sec)
	wantAll(t, "killed", s.sent(kill), 2)
}

func TestEventsOfUnknownWorkersAreIgnored(t *testing.T) {
	s := begun(t, usual(2))
	s.exitZero(1)
	for _, kind := range []Kind{Ready, Disconnected, Exited} {
		for _, id := range []int{-1, 0, 1, 99} {
			want(t, "effects", len(s.do(Event{Kind: kind, ID: id})), 0)
		}
	}
	if got := s.ids(); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("workers: %v", got)
	}
}
