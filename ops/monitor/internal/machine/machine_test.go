package machine

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the file in testdata")

var origin = time.Unix(1e9, 0)

// A sim carries out the actions of a Machine as a Manager does, and checks what must
// hold after each event.
type sim struct {
	t       testing.TB
	m       *Machine
	now     time.Time
	scripts string // the letters that have scripts

	id       int
	released bool // the slot is not held
	running  bool
	finish   bool
	asking   int // scripts u
	left     int
	done     bool
	log      []string // the actions of the last event
}

func newSim(t testing.TB, scripts string) *sim {
	s := &sim{t: t, m: New(origin), now: origin, scripts: scripts}
	s.m.Scripts = func(c byte) bool { return strings.IndexByte(s.scripts, c) >= 0 }
	return s
}

var actionNames = [...]string{"", "start", "hold", "unhold", "release", "stop", "signal", "script", "finish", "kill finish", "gave up", "gone"}

func (a Action) String() string {
	if a.For != 0 && a.For != a.Byte {
		return fmt.Sprintf("%s %c for %c", actionNames[a.Kind], a.Byte, a.For)
	}
	if a.Byte != 0 {
		return actionNames[a.Kind] + " " + string(a.Byte)
	}
	return actionNames[a.Kind]
}

func (s *sim) do(ev Event) {
	s.t.Helper()
	s.now = s.now.Add(time.Second)
	s.log = nil
	started := false
	for _, a := range s.m.Apply(s.now, ev) {
		s.log = append(s.log, a.String())
		if s.done {
			s.t.Fatalf("%v after the end", a)
		}
		switch a.Kind {
		case Start:
			if s.running || s.finish || !s.released {
				s.t.Fatalf("start with running %t, finish %t, released %t", s.running, s.finish, s.released)
			}
			started = true
		case Hold:
			if s.m.spawning {
				s.t.Fatal("a hold takes the start back, and nothing reports that")
			}
			s.released = false
		case Unhold, Release:
			s.released = true
		case Stop, Signal:
			if !s.running || a.ID != s.id {
				s.t.Fatalf("%v of run %d, running: %t", a, a.ID, s.running)
			}
		case Script:
			s.asking += count(a.Byte == 'u')
			if !s.m.has(a.Byte) {
				s.t.Fatalf("there is no such script: %v", a)
			}
		case Finish:
			if s.running || s.finish {
				s.t.Fatal("finish while run or finish is running")
			}
			s.finish = true
		case KillFinish:
			if !s.finish {
				s.t.Fatal("no finish to kill")
			}
		case Gone:
			s.done = true
		}
	}
	if started && ev.Kind != Due {
		s.t.Fatalf("start after %+v", ev)
	}
	if s.done && (s.running || s.finish) {
		s.t.Fatal("gone while a process is running")
	}
	if s.m.Status().PID != 0 != (s.running || s.finish && s.m.Status().PID == 9) {
		s.t.Fatalf("running %t, finish %t: %+v", s.running, s.finish, s.m.Status())
	}
	if s.released && !s.m.spawning && (s.finish || s.left > 0 || s.m.blocked || s.m.asking) {
		s.t.Fatalf("released while %+v", s.m)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *sim) command(c byte) { s.do(Event{Kind: Command, Byte: c}) }

// due asks to start, as the Manager does for a slot that is not held, and reports
// whether run may start.
func (s *sim) due() bool {
	s.do(Event{Kind: Due})
	return len(s.log) > 0 && s.log[len(s.log)-1] == "start"
}

func (s *sim) started() {
	s.id++
	s.running = true
	s.do(Event{Kind: Started, ID: s.id, PID: 100 + s.id})
}

func (s *sim) up() {
	s.command('u')
	s.due()
	s.started()
}

func (s *sim) exited(ev Event) {
	s.running = false
	ev.Kind, ev.ID = Exited, s.id
	s.do(ev)
}

func (s *sim) finishEnded(giveUp bool) {
	s.finish = false
	s.do(Event{Kind: FinishEnded, GiveUp: giveUp})
}

// The states in which each command is tried.
var states = []struct {
	name    string
	scripts string
	reach   func(*sim)
}{
	{"down", "", func(s *sim) {}},
	{"wait for the delay", "", func(s *sim) { s.up(); s.exited(Event{}) }},
	{"control/u is running", "u", func(s *sim) { s.command('u'); s.due() }},
	{"blocked", "", func(s *sim) { s.command('u'); s.do(Event{Kind: Blocked}) }},
	{"starting", "", func(s *sim) { s.command('u'); s.due() }},
	{"up", "", (*sim).up},
	{"up once", "", func(s *sim) { s.command('o'); s.due(); s.started() }},
	{"paused", "", func(s *sim) { s.up(); s.command('p') }},
	{"stopping", "", func(s *sim) { s.up(); s.command('d') }},
	{"up with all scripts", "udxtkpchaiq12", func(s *sim) {
		s.command('u')
		s.due()
		s.asking = 0
		s.do(Event{Kind: Scripted, Byte: 'u'})
		s.due()
		s.started()
	}},
	{"finish", "", func(s *sim) { s.up(); s.exited(Event{Finish: true}); s.do(Event{Kind: FinishStarted, PID: 9}) }},
	{"finish, wanted down", "", func(s *sim) { s.up(); s.command('d'); s.exited(Event{Finish: true}) }},
	{"gave up", "", func(s *sim) { s.up(); s.exited(Event{Finish: true}); s.finishEnded(true) }},
	{"exit while up", "", func(s *sim) { s.up(); s.command('x') }},
	{"gone", "", func(s *sim) { s.command('x') }},
	{"quit while starting", "", func(s *sim) { s.command('u'); s.due(); s.do(Event{Kind: Quit}) }},
	{"quit while up", "", func(s *sim) { s.up(); s.do(Event{Kind: Quit}) }},
	{"drain while up", "", func(s *sim) { s.up(); s.do(Event{Kind: Drain}) }},
}

const commands = "udotkpchaiq12xz"

// TestCommands checks each command in each state against testdata/commands, which
// has the actions, and then the line of the file stat.
func TestCommands(t *testing.T) {
	var b strings.Builder
	for _, state := range states {
		fmt.Fprintf(&b, "%s:\n", state.name)
		for _, c := range []byte(commands) {
			s := newSim(t, state.scripts)
			state.reach(s)
			s.command(c)
			fmt.Fprintf(&b, "  %c  %-24s %v", c, strings.Join(s.log, ", "), s.m.Status())
			if s.m.gaveUp {
				b.WriteString(", gave up")
			}
			if s.m.spawning {
				s.started()
				fmt.Fprintf(&b, "; started: %-8s %v", strings.Join(s.log, ", "), s.m.Status())
			}
			b.WriteByte('\n')
		}
	}
	if *update {
		os.WriteFile("testdata/commands", []byte(b.String()), 0o644)
	}
	want, err := os.ReadFile("testdata/commands")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("see the difference after go test -update; got:\n%s", got)
	}
}
