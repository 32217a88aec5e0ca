//go:build unix

package pool

import (
	"slices"
	"strconv"
	"syscall"
	"testing"
)

const cont = syscall.SIGCONT

// grouped is a sim with ready workers, whose groups are told to stop with them and outlive them.
func grouped(t *testing.T, slots int) *sim {
	cfg := usual(slots)
	cfg.Group, cfg.Continue = true, cont
	s := begun(t, cfg)
	s.resting = true
	return s
}

// groupSends lists what was sent to whole groups by the last step.
func (s *sim) groupSends() (sent []syscall.Signal) {
	for _, e := range s.effects {
		if e.Kind == Send && e.Group {
			sent = append(sent, e.Sig)
		}
	}
	return sent
}

func TestOnlyWhatStopsAndKillsGoesToTheGroup(t *testing.T) {
	tests := []struct {
		name string
		ev   Event
		want []syscall.Signal
	}{
		{"another signal", Event{Kind: Signal, Sig: hup}, nil},
		{"SIGCONT by hand", Event{Kind: Signal, Sig: cont, Now: true}, nil},
		{"stop", Event{Kind: Signal, Sig: term}, []syscall.Signal{term, cont}},
		{"stop, staggered", Event{Kind: Forward, Sig: term, For: hup, Interval: sec}, []syscall.Signal{term, cont}},
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
			wantAll(t, "where that is not asked for", s.groupSends())
		})
	}
}

func TestARollTellsTheGroup(t *testing.T) {
	s := grouped(t, 1)
	s.cfg.Surge, s.p.cfg.Surge = 1, 1
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Reached, ID: 2})
	wantAll(t, "to the group", s.groupSends(), rollSig, cont)
}

func TestAWorkerThatWasNeverReadyIsKilledWithItsGroup(t *testing.T) {
	cfg := usual(1)
	cfg.Group, cfg.ReadyTimeout = true, sec
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(sec)
	wantAll(t, "to the group", s.groupSends(), kill)
}

func TestARestIsToldToStopAndHasTheTimeOfItsWorker(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run("told="+strconv.FormatBool(told), func(t *testing.T) {
			s := grouped(t, 1)
			s.until(10 * sec)
			s.do(Event{Kind: Halt})
			deadline := 40 * sec
			if told {
				s.do(Event{Kind: Signal, Sig: term})
				s.until(15 * sec)
			}
			s.crash(1)
			want(t, "workers", s.p.Len(), 0)
			want(t, "rests", s.p.Rests(), 1)
			if told {
				wantAll(t, "told again", s.groupSends())
			} else {
				wantAll(t, "told", s.groupSends(), term, cont)
			}
			s.until(deadline - 1)
			wantAll(t, "before the deadline", s.groupSends())
			s.until(deadline)
			wantAll(t, "at the deadline", s.groupSends(), kill)
			want(t, "last effect", s.effects[len(s.effects)-1], Effect{Kind: Rest, ID: 1, From: Stopping, To: Killed})
			want(t, "rests", s.p.Rests(), 0)
			want(t, "Wake", s.wake, Never)
		})
	}
}

func TestTheSlotDoesNotWaitForARest(t *testing.T) {
	s := grouped(t, 1)
	s.until(10 * sec)
	s.crash(1)
	want(t, "spawned", s.in(0).id, 2)
	want(t, "rests", s.p.Rests(), 1)
}

func TestLooksComeLessAndLessOften(t *testing.T) {
	s := grouped(t, 1)
	s.do(Event{Kind: Halt})
	began := s.now
	s.leave(1)
	var looks []Time
	for len(looks) < 8 {
		s.until(s.wake)
		if slices.Contains(kinds(s.effects), Look) {
			looks = append(looks, (s.now-began)/ms)
		}
	}
	wantAll(t, "ms at which somebody looked", looks, 10, 30, 70, 150, 310, 630, 1130, 1630)
	s.rests[1].gone = true
	s.pass(500 * ms)
	wantAll(t, "effects", kinds(s.effects), Look, Rest)
	want(t, "rest", s.effects[1], Effect{Kind: Rest, ID: 1, From: Stopping, To: Gone})
	want(t, "Wake", s.wake, Never)
	s.do(Event{Kind: Emptied, ID: 1}) // once more
	s.do(Event{Kind: Emptied, ID: 7})
	want(t, "effects", len(s.effects), 0)
}

func TestRestsAreKilledByHand(t *testing.T) {
	for _, ev := range []Event{{Kind: KillAll}, {Kind: Signal, Sig: kill}, {Kind: Forward, Sig: kill, For: hup, Interval: sec}} {
		s := grouped(t, 3)
		s.do(Event{Kind: Halt})
		s.leave(1)
		s.leave(2)
		s.do(Event{Kind: Signal, Sig: term})
		wantAll(t, "a second stop", s.sent(term), 3)
		s.do(ev)
		want(t, "rests", s.p.Rests(), 0)
		killed := s.sent(kill)
		slices.Sort(killed)
		wantAll(t, "killed", killed, 1, 2, 3)
	}
}

func TestWhatWasKilledWithItsWorkerIsNotWaitedFor(t *testing.T) {
	s := grouped(t, 1)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: KillAll})
	s.exit(1, Event{Killed: true})
	wantAll(t, "once more", s.groupSends(), kill)
	want(t, "rests", s.p.Rests(), 0)
}

func TestARestWithoutStopTimeout(t *testing.T) {
	cfg := usual(1)
	cfg.Group, cfg.StopTimeout = true, -1
	s := begun(t, cfg)
	s.resting = true
	s.do(Event{Kind: Halt})
	s.leave(1)
	wantAll(t, "told", s.groupSends(), term)
	s.pass(3600 * sec)
	want(t, "rests", s.p.Rests(), 1)
	wantAll(t, "killed", s.groupSends())
}
