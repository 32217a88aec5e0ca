// Package machine decides for one service how a command acts in each state, when
// run may start, and how its end goes on. It is pure: time is an
// argument, and the caller carries out the actions.
package machine

import (
	"time"

	"github.com/prefork-go/prefork/ops/supervise"
)

// A Kind is the kind of an Event.
type Kind uint8

const (
	// Command: Byte came from supervise/control.
	Command Kind = iota + 1
	// Due: run can start now. It does if one of the actions is Start; Started or
	// Failed must be next then.
	Due
	// Started: run was started as PID. ID is new for each.
	Started
	// Failed: run could not be started, and is tried again. It is ignored unless a
	// start is under way.
	Failed
	// Blocked: run is due and cannot start before Unblocked, or a command u or o.
	Blocked
	Unblocked
	// Exited: run has ended. With Finish, finish follows. With Last, run is not
	// started again for it. With Again, run is started once more although the service
	// ends: a logger has not read everything.
	Exited
	// FinishStarted: finish runs as PID.
	FinishStarted
	// FinishEnded: finish has ended, or could not be started. GiveUp is its exit
	// status 125.
	FinishEnded
	// Scripted: the script control/Byte of run ID has ended; For is that of its Action.
	// With Replaced, it stands in for the signal.
	Scripted
	// Left: processes of run remain, which get the stop signal. They are gone, or
	// killed, at LeftGone.
	Left
	LeftGone
	// Quit: as the command x, and no later command starts the service again.
	Quit
	// Drain: as Quit, but run ends by itself: its input has ended. With Again, one
	// that is wanted up and waits is started once.
	Drain
	// Kill: as Quit, and everything is killed.
	Kill
)

// An Event is something that happened. Its Kind determines the fields that it uses.
type Event struct {
	Kind   Kind
	Byte   byte
	For    byte
	ID     int
	PID    int
	Finish bool
	Last   bool
	Again  bool
	GiveUp bool

	Replaced bool
}

// An ActionKind is the kind of an Action.
type ActionKind uint8

const (
	// Start: the start that Due asked about goes on.
	Start ActionKind = iota + 1
	// Hold: run is not due before Unhold or Release.
	Hold
	// Unhold: run is due after its delay.
	Unhold
	// Release: run is due now, and its delays begin again.
	Release
	// Stop: run ID gets the stop signal.
	Stop
	// Signal: run ID gets the signal of Byte.
	Signal
	// Script: control/Byte is run; Scripted follows.
	Script
	// Finish: finish is run; FinishStarted may follow, and FinishEnded does.
	Finish
	// KillFinish: finish is killed.
	KillFinish
	// GaveUp: run is not started again before a command u.
	GaveUp
	// Gone: the service has ended. No action follows.
	Gone
)

// An Action is to be carried out by the caller, in order.
type Action struct {
	Kind ActionKind
	Byte byte
	For  byte // of a Script t: the command, which may be d or x
	ID   int
}

type want uint8

const (
	down want = iota
	up
	exit
)

// A Machine is the state of one service. The zero value is a service that is down,
// wanted down and held.
type Machine struct {
	// Scripts reports whether there is a script control/C. nil means that there are
	// none.
	Scripts func(c byte) bool
	// Logger ignores the command x, as runsv does for log/run.
	Logger bool

	state    supervise.State
	since    time.Time
	pid, id  int
	want     want
	once     bool // it is started once, whatever is wanted
	final    bool // commands do not change want
	killing  bool
	paused   bool
	term     bool
	gaveUp   bool
	spawning bool   // between Start and Started or Failed
	queue    []byte // commands in that time
	open     bool   // not held
	blocked  bool
	left     int  // runs of which processes remain
	asking   bool // control/u is running
	asked    bool // it has ended
	hurry    bool // a command has asked for the next start, which waits for no delay
	gone     bool

	actions []Action
}

// New returns a service that is down since now.
func New(now time.Time) *Machine { return &Machine{since: now} }

// Status returns the state that supervise/status shows.
func (m *Machine) Status() supervise.Status {
	return supervise.Status{
		Since: m.since, PID: m.pid, State: m.state, Paused: m.paused, Term: m.term,
		Up: m.want == up, Exit: m.want == exit,
	}
}

// GaveUp reports whether finish has exited with 125 since the last command u.
func (m *Machine) GaveUp() bool { return m.gaveUp }

// Idle reports whether nothing runs, and nothing starts without a command.
func (m *Machine) Idle() bool {
	return m.state == supervise.Down && !m.spawning && !m.asking && m.want != up && !m.once
}

// Open reports whether the slot is not held.
func (m *Machine) Open() bool { return m.open && !m.gone }

// Starting reports whether Started or Failed must be next. Commands wait for it.
func (m *Machine) Starting() bool { return m.spawning }

// Apply changes the state by an event at now. The actions are valid until the next
// call.
func (m *Machine) Apply(now time.Time, ev Event) []Action {
	m.actions = m.actions[:0]
	if m.gone {
		return nil
	}
	switch ev.Kind {
	case Command:
		m.command(ev.Byte)
	case Due:
		m.due()
	case Started:
		m.started(now, ev)
	case Failed, Blocked:
		m.failed(ev.Kind == Blocked)
	case Unblocked:
		m.blocked = false
	case Exited:
		m.exited(now, ev)
	case FinishStarted:
		if m.state == supervise.Finish {
			m.pid = ev.PID
		}
	case FinishEnded:
		m.finishEnded(now, ev.GiveUp)
	case Scripted:
		m.scripted(ev)
	case Left:
		m.left++
	case LeftGone:
		m.left--
	case Quit, Drain, Kill:
		m.quit(ev.Kind, ev.Again)
	}
	m.settle()
	return m.actions
}

func (m *Machine) do(kind ActionKind, c byte) {
	m.actions = append(m.actions, Action{Kind: kind, Byte: c, ID: m.id})
}

// settle makes the slot open or held as the state requires. During a start it waits
// for the outcome: a Manager that holds a slot takes its start back, and
// reports nothing.
func (m *Machine) settle() {
	if m.spawning {
		return
	}
	if m.want == exit && !m.once && m.state == supervise.Down {
		if m.open {
			m.do(Hold, 0)
		}
		m.gone = true
		m.do(Gone, 0)
		return
	}
	open := (m.want == up || m.once) && m.state != supervise.Finish && !m.asking && !m.blocked && m.left == 0
	switch {
	case open && m.hurry:
		m.do(Release, 0)
		m.hurry = false
	case open && !m.open:
		m.do(Unhold, 0)
	case !open && m.open:
		m.do(Hold, 0)
	}
	m.open = open
}

func (m *Machine) due() {
	switch open := m.open && m.state == supervise.Down && !m.spawning; {
	case !open:
		m.do(Hold, 0) // again: it may have crossed the start
	case m.has('u') && !m.asked:
		m.asking = true
		m.do(Script, 'u')
	default:
		m.asked, m.spawning = false, true
		m.do(Start, 0)
	}
}

func (m *Machine) started(now time.Time, ev Event) {
	m.spawning, m.state, m.pid, m.id, m.since = false, supervise.Run, ev.PID, ev.ID, now
	m.once, m.paused, m.term = false, false, false
	if m.killing {
		m.do(Signal, 'k')
	}
	m.replay()
}

// failed ends a start. A service that should be started once is not tried again.
func (m *Machine) failed(blocked bool) {
	if !blocked && !m.spawning {
		return
	}
	m.spawning, m.once, m.blocked = false, false, blocked
	m.replay()
}

// replay carries out the commands that came during a start. There was no process
// yet that could have got their signals.
func (m *Machine) replay() {
	queue := m.queue
	m.queue = nil
	for _, c := range queue {
		m.command(c)
	}
}

func (m *Machine) exited(now time.Time, ev Event) {
	if m.state != supervise.Run || ev.ID != m.id {
		return
	}
	if ev.Last && m.want == up {
		m.want = down
	}
	m.pid, m.paused, m.term = 0, false, false
	m.once = ev.Again && m.want == exit && !m.killing
	if ev.Finish {
		m.state = supervise.Finish
		m.do(Finish, 0)
		if m.killing {
			m.do(KillFinish, 0)
		}
		return
	}
	m.state, m.since = supervise.Down, now
}

func (m *Machine) finishEnded(now time.Time, giveUp bool) {
	if m.state != supervise.Finish {
		return
	}
	m.state, m.pid, m.since = supervise.Down, 0, now
	if giveUp && m.want == up && !m.hurry {
		m.want, m.gaveUp = down, true
		m.do(GaveUp, 0)
	}
}

func (m *Machine) quit(kind Kind, again bool) {
	again = again && m.want == up
	m.want, m.final, m.once = exit, true, false
	switch {
	case kind == Kill:
		m.killing = true
		if m.state == supervise.Run {
			m.do(Signal, 'k')
		} else if m.state == supervise.Finish {
			m.do(KillFinish, 0)
		}
	case kind == Drain && again && m.state == supervise.Down:
		m.once, m.hurry = true, true
	case kind == Drain:
	case m.spawning:
		m.queue = append(m.queue, 'x')
	case m.state == supervise.Run:
		m.stop('x')
	}
}
