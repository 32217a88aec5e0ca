package machine

import (
	"testing"

	"github.com/prefork-go/prefork/ops/supervise"
)

// step does what a byte says, if it can happen now.
func (s *sim) step(b, arg byte) {
	flag := arg&1 == 1
	switch b % 16 {
	default:
		s.command(commands[int(arg)%len(commands)])
	case 1:
		s.tryStart()
	case 2:
		if s.m.spawning {
			s.do(Event{Kind: Failed})
		}
	case 3:
		if s.released && !s.running && !s.m.spawning {
			s.do(Event{Kind: Blocked})
		}
	case 4:
		s.do(Event{Kind: Unblocked})
	case 5:
		if s.running {
			s.exited(Event{Finish: arg&2 > 0, Last: arg&4 > 0, Again: arg&8 > 0})
		}
	case 6:
		if s.finish {
			s.do(Event{Kind: FinishStarted, PID: 9})
		}
	case 7:
		if s.finish {
			s.finishEnded(flag)
		}
	case 8:
		s.endScript()
	case 9:
		s.do(Event{Kind: Scripted, Byte: commands[int(arg)%len(commands)], For: "tdx"[arg%3], ID: s.id - int(arg>>6), Replaced: flag})
	case 11:
		if !s.running {
			s.left++
			s.do(Event{Kind: Left})
		}
	case 12:
		s.endLeft()
	case 10:
		if arg < 16 {
			s.do(Event{Kind: []Kind{Quit, Drain, Kill}[arg%3], Again: arg&8 > 0})
		}
	}
}

// tryStart starts run if it may, and reports whether it has.
func (s *sim) tryStart() bool {
	if !s.m.spawning && (s.running || !s.released || !s.due()) {
		return false
	}
	s.started()
	return true
}

func (s *sim) endScript() {
	if s.asking > 0 {
		s.asking--
		s.do(Event{Kind: Scripted, Byte: 'u'})
	}
}

func (s *sim) endLeft() {
	if s.left > 0 {
		s.left--
		s.do(Event{Kind: LeftGone})
	}
}

// settle lets everything end that is running.
func (s *sim) settle() {
	for s.asking > 0 {
		s.endScript()
	}
	for s.left > 0 {
		s.endLeft()
	}
	if s.m.spawning {
		s.started()
	}
	if s.running {
		s.exited(Event{})
	}
	if s.finish {
		s.finishEnded(false)
	}
}

// FuzzMachine checks after any sequence of events that a command u starts the
// service, and that it can be ended.
func FuzzMachine(f *testing.F) {
	f.Add("ut", []byte{0, 0, 1, 0, 0, 1, 8, 0, 5, 2, 6, 0, 7, 1})
	f.Add("", []byte{0, 2, 1, 0, 0, 5, 5, 0, 3, 0, 0, 0, 10, 2})
	f.Add("udx", []byte{0, 0, 8, 0, 1, 0, 0, 13, 9, 1, 5, 12, 10, 1, 1, 0})
	f.Fuzz(func(t *testing.T, scripts string, events []byte) {
		if len(events) > 200 || len(scripts) > 20 {
			return
		}
		s := newSim(t, scripts)
		for ; len(events) >= 2; events = events[2:] {
			s.step(events[0], events[1])
		}
		if !s.m.gone && !s.m.final {
			s.command('u')
			s.settle()
			for range 2 { // one may be for control/u
				if s.running || s.tryStart() {
					break
				}
				s.endScript()
			}
			if !s.running {
				t.Fatalf("a command u does not start it: %+v", s.m)
			}
		}
		s.do(Event{Kind: Kill})
		s.settle()
		if !s.done || s.released {
			t.Fatalf("gone: %t, held: %t: %+v", s.done, !s.released, s.m)
		}
		if st := s.m.Status(); st.State != supervise.Down || st.PID != 0 || !s.m.gone {
			t.Fatalf("gone as %+v", st)
		}
	})
}
