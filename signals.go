package prefork

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/wire"
)

// Signals maps a signal that the manager receives to the signal that it sends to
// its workers.
type Signals map[os.Signal]Forward

// Forward is the action of the manager for a signal. The zero
// Forward sends nothing; Start still returns.
//
// A signal other than the stop signal is held for a worker that is still starting,
// and sent when it is ready. Sent earlier, it would kill the worker or be lost. A
// worker that handles such a signal should call signal.Notify before Start, if
// IsWorker returns true. A worker ignores a signal that the table receives and
// never sends, and an interrupt that the manager traps, unless it handles them.
type Forward struct {
	// Signal is the signal to send; nil means none.
	Signal os.Signal
	// Interval staggers the signal: the oldest worker gets it at once, and one more
	// worker after each Interval, also during the next Start or WaitAllChildren. 0
	// means all at once. Workers that have exited are skipped, as are stopping
	// workers in a reload.
	Interval time.Duration
	// Rolling replaces each worker only when its replacement is ready. From the next
	// Start on (with Run, at once) the manager starts workers of the new generation,
	// at most Config.MaxSurge at a time, and sends a worker the Signal, or the stop
	// signal if Signal is nil, when a new worker is ready in its slot. Rolling
	// cannot be combined with Interval.
	//
	// The new generation fails if one of its workers cannot be spawned, is not ready
	// in time, or crashes before it is ready or within 5 s after it was. It can
	// fail until 5 s after the last worker was replaced. RollFailedEvent then
	// reports the reason. The manager replaces the workers of the failed generation
	// in the same way, and the previous generation continues, with the bytes that
	// were passed to it. The next signal tries again. A signal during a roll
	// continues with the newest generation. A Command cannot return to a previous
	// version of its file.
	Rolling bool
	// Linger is how long a Rolling replacement waits between the moment when a worker
	// is ready and the signal to the one before it, which serves until then. 0 means at
	// once. A replacement that lingers counts for MaxSurge.
	Linger time.Duration
	// Upgrade makes the Manager upgrade itself, as Manager.Upgrade does; nothing is
	// sent to the workers. Start returns when the upgrade has succeeded or failed.
	// After a success the next Start returns at once with ShutdownSignal. Run
	// continues until then. During WaitAllChildren the signal is ignored.
	Upgrade bool
}

// check returns an error for a table that could not work.
func (s Signals) check() error {
	for _, received := range slices.SortedFunc(maps.Keys(s), sig.Compare) {
		if err := checkTrap("TrapSignals", received); err != nil {
			return err
		}
		f := s[received]
		if why := f.problem(); why != "" {
			return configError("TrapSignals", "%s: %s", sig.Name(received), why)
		}
		if f.Signal != nil {
			if err := checkSignal("TrapSignals", f.Signal); err != nil {
				return err
			}
		}
	}
	return nil
}

// problem returns why its fields make no sense together, "" if they do.
func (f Forward) problem() string {
	switch {
	case f.Upgrade && f != (Forward{Upgrade: true}):
		return "Upgrade replaces the manager and sends the workers nothing: leave the other fields of its Forward empty"
	case f.Rolling && f.Interval != 0:
		return "Rolling cannot have an Interval: each worker is stopped when its replacement is ready, Config.MaxSurge at a time"
	case f.Linger != 0 && !f.Rolling:
		return "Linger is for Rolling: use Interval to stagger a signal"
	case f.Linger < 0:
		return fmt.Sprintf("Linger %v is negative; 0 means none", f.Linger)
	case f.Interval < 0:
		return fmt.Sprintf("Interval %v is negative; 0 means all workers at once", f.Interval)
	}
	return ""
}

func checkSignal(field string, s os.Signal) error {
	if err := sig.Check(s); err != nil {
		return &ConfigError{field, err}
	}
	return nil
}

// checkTrap returns an error for a signal that a program cannot receive.
func checkTrap(field string, s os.Signal) error {
	if err := sig.CheckTrap(s); err != nil {
		return &ConfigError{field, err}
	}
	return nil
}

// shutdown is how far a shutdown has come since the last generation began.
type shutdown struct {
	begun       bool // the shutdown signal was forwarded
	interrupted bool // an interrupt was forwarded
	byContext   bool // the end of Run's context began it
}

// trapTable traps the signals of the table. If the table has the shutdown signal,
// it also traps interrupts.
func (s *managerSide) trapTable() {
	if s.cfg.Untrapped {
		return
	}
	for sig := range s.cfg.TrapSignals {
		s.traps = append(s.traps, s.trap(sig))
	}
	if _, ok := s.cfg.TrapSignals[s.cfg.ShutdownSignal]; ok {
		s.traps = append(s.traps, s.trapInterrupt())
	}
	// Go ends a program that writes to a closed standard output or error, unless it
	// listens for SIGPIPE: a restart of the log's reader would end the service.
	if _, named := s.cfg.TrapSignals[syscall.SIGPIPE]; !named && !signal.Ignored(syscall.SIGPIPE) {
		s.traps = append(s.traps, sigqueue.Trap(syscall.SIGPIPE, func(os.Signal) {}))
	}
	if _, named := s.cfg.TrapSignals[syscall.SIGHUP]; !named && s.cfg.ShutdownSignal != syscall.SIGHUP && !signal.Ignored(syscall.SIGHUP) {
		s.explainHangup()
	}
}

// trap traps a signal until the returned function is called.
func (s *managerSide) trap(sig os.Signal) (release func()) {
	forget, stop := process.NoteTrap(sig), sigqueue.Trap(sig, func(sig os.Signal) { s.deliver(sig, "") })
	return func() {
		stop()
		forget()
	}
}

// explainHangup logs one line when SIGHUP, which the table does not name, ends
// this process: most users send it for a reload. The signal then has its default
// effect, unless another Manager traps it. If the program has a handler of its
// own, that receives this one signal twice, since a program cannot find out
// whether there is one.
func (s *managerSide) explainHangup() {
	release := make(chan func(), 1)
	release <- sigqueue.Trap(syscall.SIGHUP, func(hup os.Signal) {
		if slices.Contains(process.Trapped(), syscall.SIGHUP) {
			return
		}
		s.log.Error("SIGHUP is not in TrapSignals, ending by it unless the program handles it: name it there, to reload for instance, or as SIGHUP: {} for a handler of the program", "signal", sig.Name(hup))
		releaseOnce(release)
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			self.Signal(hup)
		}
	})
	s.traps = append(s.traps, func() { releaseOnce(release) })
}

// releaseOnce calls the function in the channel, unless that was done before.
func releaseOnce(release <-chan func()) {
	select {
	case f := <-release:
		f()
	default:
	}
}

// ignored returns the signals that this program's Managers trap and that this one
// never sends to its workers: such a signal may come to a worker directly, from
// killall or systemctl kill, and must not end it. The manager acts on its own.
func (l *loop) ignored() []syscall.Signal {
	sent := []os.Signal{l.stop, syscall.SIGPIPE} // Go ignores a SIGPIPE that was sent by hand
	for _, f := range l.cfg.TrapSignals {
		sent = append(sent, f.Signal)
	}
	if l.cfg.Stuck.Timeout > 0 {
		sent = append(sent, dumpSignal(l.stop))
	}
	all := process.Trapped()
	if l.cfg.StopGroup {
		// At the manager's death the kernel sends it to a group that has a suspended
		// member. The worker must live on, to end that group.
		all = append(all, syscall.SIGHUP)
	}
	return slices.DeleteFunc(all, func(sig syscall.Signal) bool { return slices.Contains(sent, os.Signal(sig)) })
}

// ignoredBySuccessor returns the signals that must not end a successor before it
// traps its own: all that this process traps, except those that stop it.
func (l *loop) ignoredBySuccessor() []syscall.Signal {
	return slices.DeleteFunc(process.Trapped(), func(sig syscall.Signal) bool {
		return sig == l.cfg.ShutdownSignal || sig == syscall.SIGINT || sig == syscall.SIGPIPE
	})
}

// trapInterrupt makes an interrupt (Ctrl-C) count as the shutdown signal until the
// returned function is called. It does nothing if the table has SIGINT, or if the
// program was started with interrupts ignored, as by nohup or by a shell without
// job control.
func (s *managerSide) trapInterrupt() (release func()) {
	if _, named := s.cfg.TrapSignals[os.Interrupt]; named || s.cfg.ShutdownSignal == os.Interrupt || signal.Ignored(os.Interrupt) {
		return func() {}
	}
	s.interrupts.Add(1)
	stop := s.trap(os.Interrupt)
	return func() {
		stop()
		s.interrupts.Add(-1)
	}
}

// trapShutdown traps the signals that Run needs beside the table.
func (s *managerSide) trapShutdown() (release func()) {
	if _, named := s.cfg.TrapSignals[s.cfg.ShutdownSignal]; named || s.cfg.Untrapped {
		return func() {} // trapTable has done it, or nothing may
	}
	stop, interrupt := s.trap(s.cfg.ShutdownSignal), s.trapInterrupt()
	return func() {
		stop()
		interrupt()
	}
}

// byDeliver is the origin of a signal that the program has delivered.
const byDeliver = "Manager.Deliver was called"

// deliver adds a signal to those that wait for the loop. The origin is the reason
// if no process has sent it.
func (s *managerSide) deliver(sig os.Signal, origin string) {
	a := sigqueue.Arrival{Sig: sig, Origin: origin}
	if sig == os.Interrupt && s.interrupts.Load() > 0 {
		a.Sig, a.Interrupt = s.cfg.ShutdownSignal, true
		s.hooks.Interrupt()
	}
	s.inbox.Signal(a)
}

// shutDown delivers the shutdown signal, which nothing has sent to this process.
// If a shutdown has several errors, Run and WaitAllChildren return the first.
func (s *managerSide) shutDown(origin string, err error) {
	s.inbox.Fail(sigqueue.Arrival{Sig: s.cfg.ShutdownSignal, Origin: origin}, err)
}

// noteFailure notes the error that came with a shutdown signal.
func (s *managerSide) noteFailure() {
	if err := s.inbox.TakeFailure(); s.failure == nil {
		s.failure = err
	}
}

// forward sends the signal of f for an arrival, which replaces the workers or not.
func (l *loop) forward(a sigqueue.Arrival, f Forward, replaces bool) {
	l.passOn(a, false)
	received, again := a.Sig, false
	if a.Interrupt {
		received = os.Interrupt
	}
	if a.Sig == l.cfg.ShutdownSignal {
		l.noteFailure()
		ownRequest := a.Origin != "" && a.Origin != byDeliver
		if l.shutdown.begun && ownRequest {
			return // no signal has arrived, and the workers are stopping already
		}
		if ownRequest {
			l.reportFailed(a.Origin)
		}
		if l.inRun && f.Signal == nil {
			f.Signal = l.stop
		}
		before := l.advanceShutdown(a)
		switch {
		case before.interrupted && a.Interrupt:
			l.emit(SignalEvent{Received: received, Sent: os.Kill, Origin: a.Origin})
			l.killAll()
			return
		case before.byContext:
			// One signal arrived twice: through Run's context, by
			// signal.NotifyContext, and at the Manager.
			return
		}
		again = before.begun
	}
	ev := SignalEvent{Received: received, Sent: f.Signal, Replaces: replaces && a.Sig != l.cfg.ShutdownSignal, Origin: a.Origin}
	l.send(f, ev, a, again)
}

// advanceShutdown notes an arrival of the shutdown signal, and returns how far
// the shutdown had come before it.
func (l *loop) advanceShutdown(a sigqueue.Arrival) (before shutdown) {
	before = l.shutdown
	if !before.begun {
		l.noteStopping(l.stoppingError())
	}
	l.shutdown = shutdown{
		begun:       true,
		interrupted: before.interrupted || a.Interrupt,
		byContext:   a.Context && !before.begun,
	}
	return before
}

// killAll kills all workers, and a successor that has not taken over.
func (l *loop) killAll() {
	if n := l.successor; n != nil && !n.tookOver {
		n.proc.Signal(syscall.SIGKILL)
	}
	l.handle(pool.Event{Kind: pool.KillAll})
}

// send sends the signal of f to the workers, and reports it by report.
func (l *loop) send(f Forward, report SignalEvent, a sigqueue.Arrival, again bool) {
	if f.Rolling {
		if f.Signal == nil {
			f.Signal = l.stop
		}
		report.Sent, report.Rolling = f.Signal, true
		l.emit(report)
		l.handle(pool.Event{Kind: pool.Roll, Sig: f.Signal.(syscall.Signal), Linger: f.Linger})
		return
	}
	report.Interval = f.Interval
	l.emit(report)
	if f.Signal == nil {
		return
	}
	ev := sendEvent(f.Signal.(syscall.Signal))
	if f.Interval > 0 {
		received, _ := a.Sig.(syscall.Signal) // 0 for a Request
		ev.Kind, ev.Interval, ev.Received, ev.Again = pool.Forward, f.Interval, received, again
	}
	l.handle(ev)
}

// sendEvent returns the event that sends s to every worker. A signal that cannot
// be caught is sent to starting workers too.
func sendEvent(s syscall.Signal) pool.Event {
	return pool.Event{Kind: pool.Signal, Sig: s, Immediate: sig.Untrappable(s) != "" || s == sig.Continue}
}

// replaces reports whether f replaces the workers by a new generation.
func (s *managerSide) replaces(f Forward) bool {
	return f.Rolling || f.Signal == os.Signal(s.stop)
}

// signal sends a signal to a worker, or to its leftover processes.
func (l *loop) signal(e pool.Effect) {
	w := l.workers[e.ID]
	if w == nil {
		w = l.leftovers[e.ID]
	}
	if e.Sig == l.stop {
		if w.unreachable = !w.reachable(); !w.unreachable {
			// A worker that reads no messages has a full socket; the signal must do.
			w.send(wire.Stop{Interrupt: l.shutdown.interrupted})
		}
	}
	signal := w.proc.Signal
	if e.Group {
		signal = w.proc.SignalGroup
	}
	if err := signal(e.Sig); err != nil {
		l.log.Error("cannot signal worker", w.logAttrs("signal", sig.Name(e.Sig), "err", err)...)
	}
}

// stopWith makes the end of ctx count as the shutdown signal.
func (s *managerSide) stopWith(ctx context.Context) (release func()) {
	deliver := func() {
		s.inbox.Signal(sigqueue.Arrival{Sig: s.cfg.ShutdownSignal, Context: true, Origin: "the context of Run has ended"})
	}
	delivered := make(chan struct{})
	stop := func() bool { return true }
	if ctx.Err() != nil {
		deliver() // before the first spawn
	} else {
		stop = context.AfterFunc(ctx, func() {
			defer close(delivered)
			deliver()
		})
	}
	return func() {
		if !stop() {
			<-delivered
		}
		s.inbox.DropContext() // it must not end a later Start
	}
}

// Deliver acts as if sig had been received. It is for hooks, tests and control
// commands. Start returns with sig even if the table does not have it; nothing is
// forwarded then. In a worker it is a no-op.
func (m *Manager) Deliver(sig os.Signal) {
	if sig == nil {
		misuse("Deliver(nil): deliver a signal")
	}
	m.side.deliver(sig, byDeliver)
}

// Shutdown acts as if ShutdownSignal had been received, so that Run returns. While
// the workers are stopping already, it sends no second stop signal; Deliver does.
func (m *Manager) Shutdown() { m.side.deliver(m.cfg.ShutdownSignal, "Manager.Shutdown was called") }

// ShutdownWith is Shutdown with an error, which Run and WaitAllChildren return once
// all workers are reaped: as it is, so that errors.Is and errors.As find it. It is
// for hooks that find a reason to end, such as an exit code of a worker. The first
// error counts, also that of a call while the workers are stopping, which sends no
// second stop signal. With a nil error it is Shutdown. In a worker it is a no-op;
// see Worker.ShutdownPool.
func (m *Manager) ShutdownWith(err error) {
	if err == nil {
		m.Shutdown()
		return
	}
	origin := err.Error()
	if origin == "" || origin == byDeliver { // these mean a signal
		origin = "Manager.ShutdownWith was called"
	}
	m.side.shutDown(origin, err)
}

// SignalAllChildren sends sig to every worker. Workers that are starting get it
// when they are ready, unless it is the stop signal. A worker that is sent the
// stop signal counts as stopping; sending it again sends it again and does no
// more. A worker ignores a signal that the table receives and never sends, unless
// it handles it. Outside a blocking call, the signal is sent when the next one
// begins. In a worker it is a no-op. It panics if sig is not a signal of the
// system.
func (m *Manager) SignalAllChildren(sig os.Signal) {
	if checkSignal("", sig) != nil {
		misuse("SignalAllChildren(%v): not a signal of the system", sig)
	}
	m.side.command(sendEvent(sig.(syscall.Signal)))
}

func (c Config) checkSignals() error {
	if err := checkTrap("ShutdownSignal", c.ShutdownSignal); err != nil {
		return err
	}
	if c.StopSignal != nil {
		if err := checkSignal("StopSignal", c.StopSignal); err != nil {
			return err
		}
	}
	if err := c.TrapSignals.check(); err != nil {
		return err
	}
	f := c.TrapSignals[c.ShutdownSignal]
	if f.Rolling || f.Upgrade {
		return configError("TrapSignals", "%s is ShutdownSignal, so it cannot be Rolling or Upgrade: a shutdown starts no workers", sig.Name(c.ShutdownSignal))
	}
	if c.StopSignal != nil && f.Signal != nil && f.Signal != c.StopSignal {
		return configError("StopSignal", "it is %s, but TrapSignals forwards %s for ShutdownSignal: a shutdown sends the stop signal", sig.Name(c.StopSignal), sig.Name(f.Signal))
	}
	return nil
}

// stopSignal is the signal that stops a worker.
func (c Config) stopSignal() syscall.Signal {
	if sig, ok := c.StopSignal.(syscall.Signal); ok {
		return sig
	}
	if sig, ok := c.TrapSignals[c.ShutdownSignal].Signal.(syscall.Signal); ok {
		return sig
	}
	return syscall.SIGTERM
}
