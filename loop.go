package prefork

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// inbox is where everything that happens waits for the loop. Putting something in never blocks.
type inbox struct {
	mu       sync.Mutex
	notes    []proc.Note
	commands []pool.Event
	signals  pending
	wake     chan struct{} // has room for one
}

func (in *inbox) put(add func(*inbox)) {
	in.mu.Lock()
	add(in)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default: // the loop will look, and then see this too
	}
}

// take empties the inbox, signals excepted.
func (in *inbox) take() (notes []proc.Note, commands []pool.Event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	notes, commands = in.notes, in.commands
	in.notes, in.commands = nil, nil
	return notes, commands
}

func (in *inbox) takeSignals() pending {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := in.signals
	in.signals = nil
	return all
}

func (m *Manager) takeSignal() (arrival, bool) {
	m.inbox.mu.Lock()
	defer m.inbox.mu.Unlock()
	return m.inbox.signals.take(m.cfg.ShutdownSignal)
}

// command has the policy handle ev at the loop's next turn.
func (m *Manager) command(ev pool.Event) {
	m.inbox.put(func(in *inbox) { in.commands = append(in.commands, ev) })
}

// in is the moment after d, which may mean for ever.
func (m *Manager) in(d time.Duration) pool.Time { return m.now() + min(d, math.MaxInt64-m.now()) }

// now is the time on the policy's scale. time.Since reads the monotonic clock, so the wall clock may jump.
func (m *Manager) now() pool.Time { return time.Since(m.origin) }

func jitter() float64 { return rand.Float64() }

// generate is the loop of Start: a generation begins, and ends with a signal.
func (m *Manager) generate() os.Signal {
	m.begin()
	for {
		step := m.turn()
		if a, ok := m.takeSignal(); ok {
			ends, sends := m.accept(a)
			if !ends {
				continue
			}
			m.handle(pool.Event{Kind: pool.Halt})
			m.received.Store(a)
			if sends {
				m.forward(a)
			}
			return a.sig
		}
		// One spawn a turn: a signal that comes while hundreds of workers start is not kept waiting for the last.
		if step.Ask {
			m.spawn(step)
			m.closeCells()
			continue
		}
		m.sleep(step.Wake, nil)
	}
}

// closeCells lets go of the cells of workers that are gone: behind the start of a replacement, which is in a hurry.
func (m *Manager) closeCells() {
	for _, cell := range m.cells {
		cell.Close()
	}
	m.cells = nil
}

// drain is the loop of WaitAllChildren.
func (m *Manager) drain(ctx context.Context) (left int, err error) {
	m.handle(pool.Event{Kind: pool.Halt})
	for {
		step := m.turn()
		if a, ok := m.takeSignal(); ok {
			// The program's loop must see a shutdown that comes while it waits, and no later signal may hide it.
			if m.SignalReceived() != m.cfg.ShutdownSignal {
				m.received.Store(a)
			}
			m.forward(a)
			continue
		}
		if m.pool.Len() == 0 && m.pool.Standbys() == 0 && m.pool.Rests() == 0 && (m.successor == nil || m.successor.took) {
			if m.stopping.begun {
				m.removeSocketFiles()
			}
			if m.gaveUp {
				m.gaveUp = false
				return 0, ErrCrashLoop
			}
			return 0, nil
		}
		if err := ctx.Err(); err != nil {
			return m.pool.Len(), err
		}
		m.sleep(step.Wake, ctx.Done())
	}
}

func (m *Manager) begin() {
	m.stopping, m.gaveUp = stopping{}, m.gaveUp && m.shutdownWaits() // it may have given up in Upgrade, and nobody has seen that yet
	m.resize()
	m.mu.Lock()
	m.generation++
	m.generations[m.generation] = generation{passed: m.passed, exe: m.fetched}
	m.mu.Unlock()
	m.changed(GenerationEvent{Generation: m.generation, MaxWorkers: m.pool.Max()})
	m.handle(pool.Event{Kind: pool.Begin})
	m.forget()
}

// turn handles all that has happened since the last.
func (m *Manager) turn() pool.Step {
	m.resize()
	m.tellPause()
	notes, commands := m.inbox.take()
	for _, n := range notes {
		if m.successor != nil && n.ID == m.successor.id {
			m.noteSuccessor(m.successor, n)
			continue
		}
		m.note(n)
	}
	for _, ev := range commands {
		m.handle(ev)
	}
	m.inherit()
	heard := m.hearLate()
	due := pool.Sooner(pool.Sooner(m.hearSlowed(), m.lookAtHungUp()), m.tickSuccessor())
	if m.watches() || m.cfg.Recycle.MaxMemory > 0 {
		m.watch.due = m.handle(pool.Event{Kind: pool.Tick, Heard: heard}).Survey || m.watch.due
		due = pool.Sooner(due, m.lookAround())
	}
	step := m.handle(pool.Event{Kind: pool.Tick, Heard: heard})
	step.Wake = pool.Sooner(step.Wake, due)
	if m.watch.due = m.watch.due || step.Survey; m.watch.due && m.watches() { // what has just changed is looked at before the loop sleeps for long
		step.Wake = pool.Sooner(step.Wake, m.readable())
	}
	return step
}

// hearLate asks those that have had their time to become ready, before they are killed for it: where the manager was held up
// (suspended, in a hook), they may have said so long ago, and the news be on its way still. It returns up to when all was heard.
func (m *Manager) hearLate() pool.Time {
	now := m.now()
	if !m.pool.Overdue(now) {
		return now
	}
	for _, c := range m.children {
		if c.State == StateStarting && !slices.Contains(m.slowed, c) {
			m.listen(c)
		}
	}
	return now
}

// resize brings what SetMaxWorkers was last given to the policy, as far as there is room.
func (m *Manager) resize() {
	if from, to := m.pool.Max(), m.room(m.MaxWorkers()); from != to {
		m.changed(ResizeEvent{From: from, To: to})
		m.handle(pool.Event{Kind: pool.Resize, N: to})
	}
}

// sleep waits until something happens, or wake comes, or done is closed.
func (m *Manager) sleep(wake pool.Time, done <-chan struct{}) {
	select {
	case <-m.inbox.wake:
		return
	default:
	}
	m.closeCells()
	m.flushLog()
	var due <-chan time.Time
	if wake != pool.Never {
		m.timer.Reset(max(0, wake-m.now()))
		due = m.timer.C
	}
	select {
	case <-m.inbox.wake:
	case <-due:
	case <-done:
	}
}

// note handles what a process has to say.
func (m *Manager) note(n proc.Note) {
	c := m.children[int(n.ID)]
	if c == nil {
		return // reaped since
	}
	if n.Kind != proc.Readable {
		c.heard = allowance{} // what it said at last is heard before its end
	}
	m.listen(c)
	if m.children[c.Ordinal] != c {
		return // reaped when it hung up
	}
	if n.Kind == proc.Ending && !c.ending && c.proc.Ending() {
		c.ending = true
		m.handle(pool.Event{Kind: pool.Yield, ID: c.Ordinal})
	}
	if n.Kind == proc.Exited {
		m.reap(c)
	}
}

// listen reads what a worker has written, as far as it goes on at once.
func (m *Manager) listen(c *child) {
	var buf [wire.MaxSize]byte
	for c.unread != nil {
		left := c.heard.left(m.now())
		if left <= 0 {
			m.slow(c)
			return
		}
		n, err := c.proc.Read(buf[:min(left, len(buf))])
		c.heard.read += n
		c.unread = append(c.unread, buf[:n]...)
		m.decode(c)
		switch {
		case c.unread == nil || err == proc.ErrWouldBlock:
			return
		case err != nil: // as a rule io.EOF
			c.unread, m.steerDue = nil, true
			m.hungUp(c)
		}
	}
}

// decode handles the messages that are complete. A worker that does not speak the protocol has lost its say, and nothing
// else if it is ready: whatever it writes is a fault of its own.
func (m *Manager) decode(c *child) {
	for {
		msg, n, err := wire.Decode(c.unread)
		switch {
		case err == wire.ErrShort:
			return
		case err != nil:
			m.log.Error("worker does not speak the protocol; nothing it says is heeded any more", c.attrs("err", err)...)
			c.unread, m.steerDue = nil, true
			m.handle(pool.Event{Kind: pool.Lost, ID: c.Ordinal})
			return
		}
		c.unread = c.unread[n:]
		switch msg := msg.(type) {
		case wire.Reached:
			m.handle(pool.Event{Kind: pool.Reached, ID: c.Ordinal})
		case wire.Parked:
			m.handle(pool.Event{Kind: pool.Parked, ID: c.Ordinal})
		case wire.Bell:
			m.watch.due, m.watch.rung = true, true
		case wire.Paused:
			m.hasPaused(c, msg.N)
		case wire.Retire:
			m.handle(pool.Event{Kind: pool.Retire, ID: c.Ordinal})
		case wire.Closed:
			m.hasClosed(c, msg.Socket)
		}
	}
}

// handle asks the policy and does what it says. It is the only caller of the policy.
func (m *Manager) handle(ev pool.Event) pool.Step {
	good := m.pool.Good()
	step := m.pool.Handle(m.now(), ev)
	for _, e := range step.Effects {
		switch e.Kind {
		case pool.Send:
			m.send(e)
		case pool.Change:
			m.transition(m.children[e.ID], e)
		case pool.Delay:
			m.changed(DelayEvent{Slot: e.Slot, For: e.For})
		case pool.Look:
			if !m.rests[e.ID].proc.Rest() {
				m.command(pool.Event{Kind: pool.Emptied, ID: e.ID})
			}
		case pool.Rest:
			m.tellRest(e)
		case pool.Rolled:
			m.changed(RolledEvent{Generation: e.Gen})
		case pool.Surrender:
			m.gaveUp = true
			m.changed(CrashLoopEvent{Failures: m.cfg.CrashLoop.Failures, Window: m.cfg.CrashLoop.Window})
			m.Deliver(m.cfg.ShutdownSignal)
		case pool.GaveUp:
			m.fetched = m.generations[e.Back].exe
			m.changed(RollFailedEvent{Generation: e.Gen, Kept: e.Back, Err: m.failure(e)})
		}
	}
	if m.pool.Good() != good && ev.Kind != pool.Begin {
		m.forget()
	}
	m.steer()
	m.tellReady()
	return step
}

// failure says why a generation was given up.
func (m *Manager) failure(e pool.Effect) error {
	if e.ID == 0 {
		return m.notSpawned
	}
	c := m.children[e.ID]
	return fmt.Errorf("worker %d (slot %d) %v: %v after %v", c.PID, c.Slot, Reason(e.Reason), exitStatus(c.status), (m.now() - c.spawned).Round(time.Millisecond))
}

// send sends a signal to a worker, or to what it has left.
func (m *Manager) send(e pool.Effect) {
	c := m.children[e.ID]
	if c == nil {
		c = m.rests[e.ID]
	}
	if e.Sig == m.stop && c.unread != nil {
		// A full socket is that of a worker that reads nothing; for that the signal must do.
		c.proc.Write(wire.Append(nil, wire.Stop{}))
	}
	signal := c.proc.Signal
	if e.Group {
		signal = c.proc.SignalGroup
	}
	if err := signal(e.Sig); err != nil {
		m.log.Error("cannot signal worker", c.attrs("signal", signalName(e.Sig), "err", err)...)
	}
}

// promote tells a standby that it has a slot. One that cannot be told is ended, and the slot gets another.
func (m *Manager) promote(c *child) {
	err := m.give(c)
	if err == nil {
		_, err = c.proc.Write(wire.Append(nil, wire.Promote{Slot: c.Slot, Plan: m.resources.SlotPlan(c.Slot)}))
	}
	if err == nil {
		return
	}
	if !hungUp(err) {
		m.log.Error("standby cannot be given its slot", c.attrs("err", err)...)
	}
	c.proc.Signal(syscall.SIGKILL)
}

// hungUp tells whether a worker could not be told something because it has ended, which is told when it is reaped.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// tellRest tells of what is left of a worker's process group. What was killed together with the worker is not worth telling.
func (m *Manager) tellRest(e pool.Effect) {
	c := m.rests[e.ID]
	if e.To >= pool.Killed {
		delete(m.rests, e.ID)
	}
	if e.From != e.To {
		m.changed(LeftoverEvent{Worker: c.WorkerInfo, State: State(e.To)})
	}
}

// transition is the one place where what others see of a worker's state changes.
func (m *Manager) transition(c *child, e pool.Effect) {
	m.mu.Lock()
	c.State = State(e.To)
	if e.To == pool.Gone {
		delete(m.children, c.Ordinal)
		if c.cell != nil {
			m.cells = append(m.cells, c.cell)
		}
	}
	promoted := c.Slot == noSlot && e.Slot != noSlot
	if c.Slot == noSlot && (promoted || e.To == pool.Gone) {
		m.standbys--
	}
	c.Slot = e.Slot
	info := c.WorkerInfo
	m.mu.Unlock()
	m.watch.due = true
	if e.From == pool.Ready {
		m.steerDue = true
	}
	if e.To == pool.Ready {
		if m.cfg.Standby > 0 {
			c.proc.Foretell()
		}
		m.steerDue = true
	}
	if promoted {
		m.promote(c)
	}
	if e.To != pool.Gone {
		m.changed(StateEvent{Worker: info, From: State(e.From), Reason: Reason(e.Reason)})
		return
	}
	exit := Exit{
		Slot: c.Slot, Generation: c.Generation, Ordinal: c.Ordinal, PID: c.PID,
		Status: exitStatus(c.status), Reason: Reason(e.Reason), Uptime: m.now() - c.spawned, Usage: c.usage,
	}
	m.changed(ExitEvent{Exit: exit, From: State(e.From)})
	if e.From < pool.Stopping && (e.From == pool.Starting || !c.status.Clean()) || exit.Reason == ReasonReadyTimeout {
		m.tellFailed(exit.String())
	}
	if m.cfg.OnChildReap != nil {
		m.flushLog()
		m.cfg.OnChildReap(m, exit)
	}
}
