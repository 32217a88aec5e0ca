package machine

import (
	"slices"
	"strings"
	"testing"
)

// Sequences of events, each with the actions and the line of stat that follow.
func TestSequences(t *testing.T) {
	type step struct {
		do   func(*sim)
		want string // the actions; then stat
	}
	command := func(c byte) func(*sim) { return func(s *sim) { s.command(c) } }
	event := func(ev Event) func(*sim) { return func(s *sim) { s.do(ev) } }
	due := func(s *sim) { s.due() }
	scripted := func(c, of byte, replaced bool) func(*sim) {
		return func(s *sim) { s.do(Event{Kind: Scripted, Byte: c, For: of, ID: s.id, Replaced: replaced}) }
	}
	asked := func(s *sim) { s.asking = 0; s.do(Event{Kind: Scripted, Byte: 'u'}) }
	exited := func(ev Event) func(*sim) { return func(s *sim) { s.exited(ev) } }
	finished := func(giveUp bool) func(*sim) { return func(s *sim) { s.finishEnded(giveUp) } }
	for name, tt := range map[string]struct {
		scripts string
		steps   []step
	}{
		"finish, with the pace of the list": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Finish: true}), "finish, hold|finish"},
			{event(Event{Kind: FinishStarted, PID: 9}), "|finish"},
			{finished(false), "unhold|down"},
			{event(Event{Kind: FinishStarted, PID: 9}), "|down"},
			{due, "start|down"},
			{(*sim).started, "|run"},
			{event(Event{Kind: FinishEnded, GiveUp: true}), "|run"},
			{event(Event{Kind: Exited, ID: 99}), "|run"},
			{due, "hold|run"},
		}},
		"u in finish starts at once": {"", []step{
			{(*sim).up, "|run"},
			{command('d'), "stop, hold|run, got TERM, want down"},
			{exited(Event{Finish: true}), "finish|finish, want down"},
			{command('u'), "|finish"},
			{finished(false), "release|down"},
		}},
		"d takes back a u in finish": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Finish: true}), "finish, hold|finish"},
			{command('u'), "|finish"},
			{command('d'), "|finish, want down"},
			{finished(false), "|down"},
			{command('u'), "release|down"},
		}},
		"125": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Finish: true}), "finish, hold|finish"},
			{finished(true), "gave up|down"},
			{due, "hold|down"},
			{command('u'), "release|down"},
		}},
		"125 after a u in finish": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Finish: true}), "finish, hold|finish"},
			{command('u'), "|finish"},
			{finished(true), "release|down"},
		}},
		"125 of a service that is wanted down": {"", []step{
			{(*sim).up, "|run"},
			{command('d'), "stop, hold|run, got TERM, want down"},
			{exited(Event{Finish: true}), "finish|finish, want down"},
			{finished(true), "|down"},
		}},
		"exit after finish": {"", []step{
			{(*sim).up, "|run"},
			{command('x'), "stop, hold|run, got TERM, want exit"},
			{exited(Event{Finish: true}), "finish|finish, want exit"},
			{finished(true), "gone|down"},
		}},
		"u takes back an x": {"", []step{
			{(*sim).up, "|run"},
			{command('x'), "stop, hold|run, got TERM, want exit"},
			{command('u'), "release|run, got TERM"},
			{exited(Event{}), "|down"},
			{due, "start|down"},
		}},
		"the policy ends it": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Last: true}), "hold|down"},
			{command('o'), "release|down"},
		}},
		"once, in the wait": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{}), "|down"},
			{command('o'), "release|down"},
			{due, "start|down"},
			{(*sim).started, "hold|run, want down"},
			{exited(Event{}), "|down"},
		}},
		"once, and it cannot be started": {"", []step{
			{command('o'), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Failed}), "hold|down"},
		}},
		"once, taken back": {"", []step{
			{command('o'), "release|down"},
			{command('d'), "hold|down"},
			{command('o'), "release|down"},
			{event(Event{Kind: Quit}), "hold, gone|down"},
		}},
		"d in a start that fails": {"", []step{
			{command('u'), "release|down"},
			{due, "start|down"},
			{command('d'), "|down"},
			{event(Event{Kind: Failed}), "hold|down"},
		}},
		"the policy in an exit": {"", []step{
			{(*sim).up, "|run"},
			{command('x'), "stop, hold|run, got TERM, want exit"},
			{exited(Event{Last: true}), "gone|down"},
		}},
		"a failed start is tried again": {"", []step{
			{command('u'), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Failed}), "|down"},
			{event(Event{Kind: Failed}), "|down"},
			{due, "start|down"},
		}},
		"a failure that came before the start": {"", []step{
			{command('o'), "release|down"},
			{event(Event{Kind: Failed}), "|down"},
		}},
		"blocked": {"", []step{
			{command('u'), "release|down"},
			{event(Event{Kind: Blocked}), "hold|down"},
			{event(Event{Kind: Unblocked}), "unhold|down"},
			{event(Event{Kind: Blocked}), "hold|down"},
			{command('u'), "release|down"},
			{event(Event{Kind: Blocked}), "hold|down"},
			{command('x'), "gone|down"},
		}},
		"control/u, before each start": {"u", []step{
			{command('u'), "release|down"},
			{due, "script u, hold|down"},
			{asked, "unhold|down"},
			{due, "start|down"},
			{(*sim).started, "|run"},
			{exited(Event{}), "|down"},
			{due, "script u, hold|down"},
			{command('d'), "|down"},
			{asked, "|down"},
			{command('u'), "release|down"},
			{due, "script u, hold|down"},
		}},
		"control/t replaces the signal, also for d": {"td", []step{
			{func(s *sim) { s.up() }, "|run"},
			{command('d'), "script t for d, hold|run, want down"},
			{scripted('t', 'd', true), "signal c, script d|run, want down"},
			{scripted('d', 0, false), "|run, want down"},
			{scripted('x', 0, false), "|run, want down"},
			{command('t'), "script t|run, want down"},
			{scripted('t', 't', true), "|run, want down"},
			{command('t'), "script t|run, want down"},
			{scripted('t', 't', false), "stop|run, got TERM, want down"},
			{exited(Event{}), "|down"},
			{scripted('t', 't', false), "|down"},
		}},
		"control/t fails": {"t", []step{
			{(*sim).up, "|run"},
			{command('x'), "script t for x, hold|run, want exit"},
			{scripted('t', 'x', false), "stop|run, got TERM, want exit"},
		}},
		"control/h": {"h", []step{
			{(*sim).up, "|run"},
			{command('h'), "script h|run"},
			{scripted('h', 0, true), "|run"},
			{command('h'), "script h|run"},
			{scripted('h', 0, false), "signal h|run"},
		}},
		"a script of the run before": {"h", []step{
			{(*sim).up, "|run"},
			{command('h'), "script h|run"},
			{exited(Event{}), "|down"},
			{due, "start|down"},
			{(*sim).started, "|run"},
			{func(s *sim) { s.do(Event{Kind: Scripted, Byte: 'h', ID: s.id - 1}) }, "|run"},
		}},
		"processes that remain": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{}), "|down"},
			{func(s *sim) { s.left++; s.do(Event{Kind: Left}) }, "hold|down"},
			{(*sim).endLeft, "unhold|down"},
		}},
		"quit cannot be taken back": {"", []step{
			{(*sim).up, "|run"},
			{event(Event{Kind: Quit}), "stop, hold|run, got TERM, want exit"},
			{command('u'), "|run, got TERM, want exit"},
			{exited(Event{}), "gone|down"},
		}},
		"quit in a start": {"", []step{
			{command('u'), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Quit}), "|down"},
			{(*sim).started, "stop, hold|run, got TERM, want exit"},
		}},
		"drain": {"", []step{
			{(*sim).up, "|run"},
			{event(Event{Kind: Drain}), "hold|run, want exit"},
			{exited(Event{Again: true}), "unhold|down"},
			{due, "start|down"},
			{(*sim).started, "hold|run, want exit"},
			{exited(Event{}), "gone|down"},
		}},
		"drain of a logger that waits": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{}), "|down"},
			{event(Event{Kind: Drain, Again: true}), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Failed}), "hold, gone|down"},
		}},
		"drain of a logger that is down": {"", []step{
			{event(Event{Kind: Drain, Again: true}), "gone|down"},
		}},
		"kill": {"t", []step{
			{(*sim).up, "|run"},
			{event(Event{Kind: Kill}), "signal k, hold|run, want exit"},
			{exited(Event{Finish: true, Again: true}), "finish, kill finish|finish, want exit"},
			{finished(false), "gone|down"},
		}},
		"kill in finish": {"", []step{
			{(*sim).up, "|run"},
			{exited(Event{Finish: true}), "finish, hold|finish"},
			{event(Event{Kind: Kill}), "kill finish|finish, want exit"},
		}},
		"kill in a start": {"", []step{
			{command('u'), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Kill}), "|down"},
			{(*sim).started, "signal k, hold|run, want exit"},
		}},
		"quit in a start that fails": {"", []step{
			{command('u'), "release|down"},
			{due, "start|down"},
			{event(Event{Kind: Quit}), "|down"},
			{event(Event{Kind: Failed}), "hold, gone|down"},
		}},
	} {
		s := newSim(t, tt.scripts)
		for i, step := range tt.steps {
			step.do(s)
			log := s.log
			if i == 0 && s.running { // of up
				log = nil
			}
			if got := strings.Join(log, ", ") + "|" + s.m.Status().String(); got != step.want {
				t.Errorf("%s, step %d: %s, want %s", name, i+1, got, step.want)
			}
		}
	}
}

// A logger ignores x; a service does not.
func TestLoggerIgnoresExit(t *testing.T) {
	for _, logger := range []bool{false, true} {
		s := newSim(t, "")
		s.m.Logger = logger
		s.up()
		s.command('x')
		if slices.Contains(s.log, "stop") == logger {
			t.Errorf("logger %t: %q", logger, s.log)
		}
	}
}

// The time is that of the last start, kept through finish and pauses, or of the end.
func TestSince(t *testing.T) {
	s := newSim(t, "")
	s.up()
	start := s.now
	s.command('p')
	s.command('c')
	s.exited(Event{Finish: true})
	s.do(Event{Kind: FinishStarted, PID: 9})
	if st := s.m.Status(); !st.Since.Equal(start) || st.PID != 9 {
		t.Errorf("in finish: %+v, started at %v", st, start)
	}
	s.finishEnded(false)
	end := s.now
	s.command('d')
	if st := s.m.Status(); !st.Since.Equal(end) {
		t.Errorf("down since %v, ended at %v", st.Since, end)
	}
}
