package prefork

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
)

// Signals maps a signal that the manager receives to what it sends to its workers.
type Signals map[os.Signal]Forward

// Forward says what is sent to the workers for a signal. The zero Forward sends nothing: Start still returns.
//
// A signal other than the stop signal is held for a worker that is still starting, and sent when it is ready:
// earlier it would kill it or be lost on it. So a worker that handles such a signal listens for it (signal.Notify)
// before Start, behind IsWorker.
type Forward struct {
	// Signal is what is sent; nil for nothing.
	Signal os.Signal
	// Interval staggers it: one worker now, the oldest first, and one more each Interval, also while the program is in
	// the next Start or in WaitAllChildren. 0 means all at once. Workers that have ended meanwhile, and in a reload
	// those that were told to stop already, are passed over.
	Interval time.Duration
	// Rolling replaces the workers without taking one away before its replacement is ready: from the next Start on (in
	// Run at once) each worker is told to stop, by Signal or, where that is nil, by the stop signal, only when a worker of
	// the new generation is ready in its slot. At most Config.MaxSurge replacements start at a time. It cannot be combined with
	// Interval.
	//
	// If a worker of the new generation fails (it cannot be spawned, is not ready in time, or ends badly before it is
	// ready or soon after), the generation is given up: RollFailedEvent says why, its workers are stopped, those that
	// were ready already being replaced in the same way, and the workers before it go on, with what was passed to them. The next
	// signal tries again. One that comes while workers are being replaced goes on to the newest generation. "Soon after" ends a
	// second after the last worker was replaced. For a Command there is no way back to what its file was.
	Rolling bool
	// Upgrade has the Manager upgrade itself, as Manager.Upgrade does; nothing is sent to the workers. Start returns when
	// it has come out, either way, and after a success the next Start returns at once with ShutdownSignal; Run goes on
	// until then. In WaitAllChildren nothing is done for it.
	Upgrade bool
}

// check refuses what could not work.
func (s Signals) check() error {
	for _, received := range slices.SortedFunc(maps.Keys(s), func(a, b os.Signal) int { return signum(a) - signum(b) }) {
		f := s[received]
		if err := checkTrap("TrapSignals", received); err != nil {
			return err
		}
		if f.Signal != nil {
			if err := checkSignal("TrapSignals", f.Signal); err != nil {
				return err
			}
		}
		if f.Upgrade && f != (Forward{Upgrade: true}) {
			return configError("TrapSignals", "%v: Upgrade replaces the manager, and sends the workers nothing: leave the rest of its Forward empty", received)
		}
		if f.Rolling && f.Interval != 0 {
			return configError("TrapSignals", "%v: Rolling has no Interval; each worker is told to stop when its replacement is ready, and MaxSurge says how many at a time", received)
		}
		if f.Interval < 0 {
			return configError("TrapSignals", "%v: Interval %v is negative; 0 means all workers at once", received, f.Interval)
		}
	}
	return nil
}

func signum(sig os.Signal) int {
	n, _ := sig.(syscall.Signal)
	return int(n)
}

func checkSignal(field string, sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return configError(field, "%v (%T) is not a signal of the system; use those of package syscall", sig, sig)
	}
	if n < 1 || n > 64 {
		return configError(field, "there is no signal %d", int(n))
	}
	return nil
}

// checkTrap refuses signals that cannot be received.
func checkTrap(field string, sig os.Signal) error {
	if err := checkSignal(field, sig); err != nil {
		return err
	}
	if why := untrappable(sig.(syscall.Signal)); why != "" {
		return configError(field, "%v cannot be trapped: %s", sig, why)
	}
	return nil
}

// arrival is a signal that was received, as the Manager counts it.
type arrival struct {
	sig       os.Signal
	interrupt bool // it was an interrupt, and counts as sig
	ctx       bool // it was the end of Run's context, and counts as sig
}

// stopping is how far a shutdown has come since the last generation began.
type stopping struct {
	begun       bool // the shutdown signal was forwarded
	interrupted bool // an interrupt was
	byContext   bool // the end of Run's context began it
}

// pending are the signals that have arrived and wait for the loop: one of each, the shutdown signal before all others,
// these in order of arrival. Parallel::Prefork keeps only the last, and forgets that at the entry of start, so that a
// TERM is lost behind a HUP or while the configuration is loaded (its defects D1 and D2).
type pending []arrival

func (p *pending) add(a arrival) {
	if !slices.Contains(*p, a) {
		*p = append(*p, a)
	}
}

func (p pending) has(sig os.Signal) bool {
	return slices.ContainsFunc(p, func(a arrival) bool { return a.sig == sig })
}

func (p *pending) take(shutdown os.Signal) (arrival, bool) {
	if len(*p) == 0 {
		return arrival{}, false
	}
	i := max(0, slices.IndexFunc(*p, func(a arrival) bool { return a.sig == shutdown }))
	a := (*p)[i]
	*p = slices.Delete(*p, i, i+1)
	return a, true
}

// trap has sig received by the Manager, until the returned function is called.
//
// Each signal has a channel of its own, with room for one: what is in it says that the signal has come, and a second of
// the same adds nothing. In a channel that signals share, many HUPs would leave no room for a TERM.
func (m *Manager) trap(sig os.Signal) (release func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, sig)
	go func() {
		for sig := range c {
			m.arrive(sig)
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

// trapTable begins to receive what the table names. Where it names the shutdown signal and not SIGINT, Ctrl-C is taken
// for it, as far as interrupts were not ignored when the program was started (by nohup, or by a shell without job
// control).
func (m *Manager) trapTable() {
	for sig := range m.cfg.TrapSignals {
		m.trap(sig)
	}
	if _, ok := m.cfg.TrapSignals[m.cfg.ShutdownSignal]; ok {
		m.trapInterrupt()
	}
	// Go ends a program that writes to its standard output or error when nobody reads there any more, unless it listens for
	// SIGPIPE: a reader of the log that restarts would end the service.
	if _, named := m.cfg.TrapSignals[syscall.SIGPIPE]; !named && !signal.Ignored(syscall.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	}
}

// trapInterrupt has Ctrl-C count as the shutdown signal, until the returned function is called.
func (m *Manager) trapInterrupt() (release func()) {
	if _, named := m.cfg.TrapSignals[os.Interrupt]; named || m.cfg.ShutdownSignal == os.Interrupt || signal.Ignored(os.Interrupt) {
		return func() {}
	}
	m.interrupts.Add(1)
	stop := m.trap(os.Interrupt)
	return func() {
		stop()
		m.interrupts.Add(-1)
	}
}

// trapShutdown receives what Run needs beside the table.
func (m *Manager) trapShutdown() (release func()) {
	if _, named := m.cfg.TrapSignals[m.cfg.ShutdownSignal]; named {
		return func() {} // and so is the interrupt
	}
	stop, interrupt := m.trap(m.cfg.ShutdownSignal), m.trapInterrupt()
	return func() {
		stop()
		interrupt()
	}
}

// arrive takes in a signal, from any goroutine.
func (m *Manager) arrive(sig os.Signal) {
	a := arrival{sig: sig}
	if sig == os.Interrupt && m.interrupts.Load() > 0 {
		a = arrival{sig: m.cfg.ShutdownSignal, interrupt: true}
	}
	m.inbox.put(func(in *inbox) { in.signals.add(a) })
}

// forward sends what the table says for a signal.
func (m *Manager) forward(a arrival) {
	f := m.cfg.TrapSignals[a.sig]
	m.passOn(a, false)
	received, again := a.sig, false
	if a.interrupt {
		received = os.Interrupt
	}
	if a.sig == m.cfg.ShutdownSignal {
		if m.inRun && f.Signal == nil {
			f.Signal = syscall.SIGTERM
		}
		before := m.stopping
		m.stopping.begun = true
		m.stopping.interrupted = before.interrupted || a.interrupt
		m.stopping.byContext = a.ctx && !before.begun
		switch {
		case before.interrupted && a.interrupt:
			m.changed(SignalEvent{Received: received, Sent: os.Kill})
			if m.successor != nil && !m.successor.took {
				m.successor.proc.Signal(syscall.SIGKILL)
			}
			m.handle(pool.Event{Kind: pool.KillAll})
			return
		case before.begun && (a.ctx || before.byContext):
			return // one signal, told twice: to the Manager and, by signal.NotifyContext, through Run's context
		}
		again = before.begun
	}
	if f.Rolling {
		if f.Signal == nil {
			f.Signal = m.stop
		}
		m.changed(SignalEvent{Received: received, Sent: f.Signal, Rolling: true})
		m.handle(pool.Event{Kind: pool.Roll, Sig: f.Signal.(syscall.Signal)})
		return
	}
	m.changed(SignalEvent{Received: received, Sent: f.Signal, Interval: f.Interval})
	if f.Signal == nil {
		return
	}
	ev := sendEvent(f.Signal.(syscall.Signal))
	if f.Interval > 0 {
		ev.Kind, ev.Interval, ev.For, ev.Again = pool.Forward, f.Interval, a.sig.(syscall.Signal), again
	}
	m.handle(ev)
}

// sendEvent tells the policy to send sig to every worker. What cannot be caught needs no worker that is ready for it.
func sendEvent(sig syscall.Signal) pool.Event {
	return pool.Event{Kind: pool.Signal, Sig: sig, Now: untrappable(sig) != "" || sig == continueSignal}
}

// replaces tells whether a signal has the workers replaced by a new generation.
func (m *Manager) replaces(sig os.Signal) bool {
	f := m.cfg.TrapSignals[sig]
	return f.Rolling || f.Signal == os.Signal(m.stop)
}

// signalName is the name by which people know a signal.
func signalName(sig os.Signal) string {
	switch n, ok := sig.(syscall.Signal); {
	case sig == nil:
		return "nothing"
	case ok && systemName(n) != "":
		return systemName(n)
	case ok:
		return fmt.Sprintf("signal %d", int(n))
	}
	return sig.String()
}
