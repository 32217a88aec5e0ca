//go:build unix

package pool

import (
	"slices"
	"strconv"
	"syscall"
	"testing"
)

const cont = syscall.SIGCONT

// grouped returns a sim with ready workers whose process groups outlive them.
func grouped(t *testing.T, slots int) *sim {
	cfg := usual(slots)
	cfg.Group, cfg.Continue = true, cont
	s := begun(t, cfg)
	s.keepGroups = true
	return s
}

// groupSends returns the signals that the last do or pass sent to process
// groups.
func (s *sim) groupSends() (sent []syscall.Signal) {
	for _, e := range s.effects {
		if e.Kind == Send && e.Group {
			sent = append(sent, e.Sig)
		}
	}
	return sent
}

func TestOnlyStopsAndKillsGoToTheGroup(t *testing.T) {
	tests := []struct {
		name string
		ev   Event
		want []syscall.Signal
	}{
		{"another signal", Event{Kind: Signal, Sig: hup}, nil},
		{"SIGCONT", Event{Kind: Signal, Sig: cont, Immediate: true}, nil},
		{"stop", Event{Kind: Signal, Sig: term}, []syscall.Signal{term, cont}},
		{"stop, staggered", Event{Kind: Forward, Sig: term, Received: hup, Interval: sec}, []syscall.Signal{term, cont}},
		{"surplus", Event{Kind: Resize}, []syscall.Signal{term, cont}},
		{"SIGKILL", Event{Kind: Signal, Sig: kill}, []syscall.Signal{kill}},
		{"kill all", Event{Kind: KillAll}, []syscall.Signal{kill}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := grouped(t, 1)
			s.do(tt.ev)
			wantAll(t, "to the group", s.groupSends(), tt.want...)
			s = begun(t, usual(1))
			s.do(tt.ev)
			wantAll(t, "without Config.Group", s.groupSends())
		})
	}
}

func TestRollStopsTheGroup(t *testing.T) {
	s := grouped(t, 1)
	s.cfg.Surge, s.p.cfg.Surge = 1, 1
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Ready, ID: 2})
	wantAll(t, "to the group", s.groupSends(), rollSig, cont)
}

func TestReadyTimeoutKillsTheGroup(t *testing.T) {
	cfg := usual(1)
	cfg.Group, cfg.ReadyTimeout = true, sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(sec)
	wantAll(t, "to the group", s.groupSends(), kill)
}

func TestLeftoverHasTheDeadlineOfItsWorker(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run("stopped="+strconv.FormatBool(stopped), func(t *testing.T) {
			s := grouped(t, 1)
			s.until(10 * sec)
			s.do(Event{Kind: Halt})
			deadline := 40 * sec
			if stopped {
				s.do(Event{Kind: Signal, Sig: term})
				s.until(15 * sec)
			}
			s.crash(1)
			want(t, "workers", s.p.Len(), 0)
			want(t, "leftovers", s.p.Leftovers(), 1)
			if stopped {
				wantAll(t, "stopped again", s.groupSends())
			} else {
				wantAll(t, "stopped", s.groupSends(), term, cont)
			}
			s.until(deadline - 1)
			wantAll(t, "before the deadline", s.groupSends())
			s.until(deadline)
			wantAll(t, "at the deadline", s.groupSends(), kill)
			want(t, "last effect", s.effects[len(s.effects)-1], Effect{Kind: Leftover, ID: 1, From: StateStopping, To: StateKilled})
			want(t, "leftovers", s.p.Leftovers(), 0)
			want(t, "Wake", s.wake, Never)
		})
	}
}

func TestSlotDoesNotWaitForLeftover(t *testing.T) {
	s := grouped(t, 1)
	s.until(10 * sec)
	s.crash(1)
	want(t, "spawned", s.in(0).id, 2)
	want(t, "leftovers", s.p.Leftovers(), 1)
}

func TestGroupChecksBecomeLessFrequent(t *testing.T) {
	s := grouped(t, 1)
	s.do(Event{Kind: Halt})
	began := s.now
	s.exitZero(1)
	var checks []Time
	for len(checks) < 8 {
		s.until(s.wake)
		if slices.Contains(kinds(s.effects), CheckGroup) {
			checks = append(checks, (s.now-began)/ms)
		}
	}
	wantAll(t, "ms of the checks", checks, 10, 30, 70, 150, 310, 630, 1130, 1630)
	s.leftovers[1].empty = true
	s.pass(500 * ms)
	wantAll(t, "effects", kinds(s.effects), CheckGroup, Leftover)
	want(t, "leftover", s.effects[1], Effect{Kind: Leftover, ID: 1, From: StateStopping, To: StateGone})
	want(t, "Wake", s.wake, Never)
	s.do(Event{Kind: GroupGone, ID: 1}) // again
	s.do(Event{Kind: GroupGone, ID: 7})
	want(t, "effects", len(s.effects), 0)
}

func TestLeftoversAreKilledByRequest(t *testing.T) {
	for _, ev := range []Event{{Kind: KillAll}, {Kind: Signal, Sig: kill}, {Kind: Forward, Sig: kill, Received: hup, Interval: sec}} {
		s := grouped(t, 3)
		s.do(Event{Kind: Halt})
		s.exitZero(1)
		s.exitZero(2)
		s.do(Event{Kind: Signal, Sig: term})
		wantAll(t, "a second stop", s.sent(term), 3)
		s.do(ev)
		want(t, "leftovers", s.p.Leftovers(), 0)
		killed := s.sent(kill)
		slices.Sort(killed)
		wantAll(t, "killed", killed, 1, 2, 3)
	}
}

func TestGroupKilledWithItsWorkerIsForgotten(t *testing.T) {
	s := grouped(t, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: KillAll})
	s.exit(1, Event{Killed: true})
	wantAll(t, "killed again", s.groupSends(), kill)
	want(t, "leftovers", s.p.Leftovers(), 0)
}

func TestLeftoverWithoutStopTimeout(t *testing.T) {
	cfg := usual(1)
	cfg.Group, cfg.StopTimeout = true, -1
	s := begun(t, cfg)
	s.keepGroups = true
	s.do(Event{Kind: Halt})
	s.exitZero(1)
	wantAll(t, "stopped", s.groupSends(), term)
	s.pass(3600 * sec)
	want(t, "leftovers", s.p.Leftovers(), 1)
	wantAll(t, "killed", s.groupSends())
}
