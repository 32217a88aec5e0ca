package prefork

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/sigqueue"
)

// Follow calls f with each event from now on: once, in order, in the loop's
// goroutine, after Config.Observe. It returns the state at that moment, so that
// the state together with the events after Snapshot.Seq is complete. It is for
// code that shows or reports what the Manager does, such as a control socket, and
// may be called at any time. f must not block, since nothing else happens in the
// pool meanwhile; it should store the record, for another goroutine.
//
// After stop, f is not called for further events; a call that is under way may
// still run. In a worker there are no events. It panics if f is nil.
func (m *Manager) Follow(f func(Record)) (now Snapshot, stop func()) {
	if f == nil {
		misuse("Follow(nil): it needs a function to call")
	}
	return m.side.follow(f)
}

// Ping returns nil when the loop has completed a turn, and has acted on the signals
// and commands that this goroutine has given before. It is for a watchdog: the loop
// turns unless a hook blocks, and only while a blocking call is under way. Otherwise
// Ping returns ctx's error when ctx ends. In a worker it returns nil at once. It
// blocks, and must not be called in a hook.
func (m *Manager) Ping(ctx context.Context) error { return m.side.ping(ctx) }

// Note reports a NoteEvent at the loop's next turn, so that events, log and
// journal have it in order: text is a command or a remark of the program, by is
// its author, "" for none. Line breaks are replaced by spaces. In a worker it is a
// no-op.
func (m *Manager) Note(by, text string) {
	ev := NoteEvent{By: oneLine(by), Text: oneLine(text)}
	m.side.do(func() { m.side.emit(ev) })
}

// Request is the os.Signal of a command: "reload" of Manager.Reload, "upgrade" of
// Manager.RequestUpgrade. Start returns for it as for a signal, and SignalReceived
// then returns it. It is no signal of the system, and cannot be sent or trapped.
type Request string

const (
	requestReload  = Request("reload")
	requestUpgrade = Request("upgrade")
)

// Signal makes Request an os.Signal.
func (Request) Signal() {}

func (r Request) String() string { return string(r) }

// Reload replaces the workers as a signal with f does, and waits until the pool has
// settled on the new generation, whose number it returns. If f is zero, it is the
// entry of the table for SIGHUP, if that replaces the workers, and Rolling
// otherwise. A nil Signal means the stop signal.
//
// It fails if Config.Reload fails, if the new generation fails (with its number),
// and if a shutdown or WaitAllChildren comes first. If ctx ends it returns ctx's
// error, and the reload goes on. A reload that does not fail but never settles, such
// as one of all workers at once whose new workers crash, goes on until ctx ends.
//
// The configuration is read after the call. A call while the same reload waits joins
// it. One that is under way may have read the configuration before: a call then waits
// until that has ended, or a worker of its generation has, and all calls that wait
// are one reload more. A signal, and a Reload with another f, do not wait: they begin
// a new generation. A reload that is superseded by another has the outcome of that.
//
// In a Start loop, Start returns with the Request "reload", and the program begins
// the generation by its next Start. Reload blocks, and must not be called in a hook,
// nor by the goroutine of the blocking calls. In a worker it is a no-op.
func (m *Manager) Reload(ctx context.Context, f Forward) (generation int, err error) {
	f, err = m.cfg.reloadForward(f)
	if err == nil {
		generation, err = wait(ctx, m.side.ask(requestReload, f))
	}
	if err != nil {
		err = fmt.Errorf("prefork: Reload: %w", err)
	}
	return generation, err
}

// reloadForward completes the Forward of a Reload.
func (c Config) reloadForward(f Forward) (Forward, error) {
	stop := c.stopSignal()
	if f == (Forward{}) {
		f = c.TrapSignals[syscall.SIGHUP]
		if !f.Rolling && f.Signal != os.Signal(stop) {
			f = Forward{Rolling: true}
		}
	}
	if f.Signal == nil {
		f.Signal = stop
	}
	switch {
	case f.Upgrade:
		return f, errors.New("an upgrade is not a reload: call RequestUpgrade")
	case f.problem() != "":
		return f, errors.New(f.problem())
	case !f.Rolling && f.Signal != os.Signal(stop):
		return f, fmt.Errorf("%s does not replace the workers: use the stop signal %s, or SignalAllChildren", sig.Name(f.Signal), sig.Name(stop))
	}
	return f, checkSignal("Signal", f.Signal)
}

// RequestUpgrade is Upgrade for another goroutine than that of the blocking calls:
// it waits until a successor has taken over, and returns its pid, or has failed. If
// ctx ends it returns ctx's error, and the upgrade goes on.
//
// A call while an upgrade is under way waits for its end, since the program on disk
// may have been replaced again. If that upgrade fails, all calls that wait are one
// more; if it succeeds they fail, and should be made in the successor.
//
// In a Start loop, Start returns with the Request "upgrade" after the takeover or a
// failure. An upgrade that is refused (see Upgrade) ends nothing. RequestUpgrade
// blocks, and must not be called in a hook. In a worker it is a no-op.
func (m *Manager) RequestUpgrade(ctx context.Context) (pid int, err error) {
	pid, err = wait(ctx, m.side.ask(requestUpgrade, nil))
	if err != nil {
		err = fmt.Errorf("prefork: RequestUpgrade: %w", err)
	}
	return pid, err
}

// ReplaceWorker replaces one worker as Config.Recycle does, and waits until another
// worker is ready in its slot. It returns a *NoWorkerError if no worker at work has
// that ordinal, and an error if the first replacement fails; the Manager then keeps
// trying. If ctx ends it returns ctx's error. A worker that has just been started is
// replaced a second after its start. A shutdown ends the wait with an error.
// ReplaceWorker blocks, and must not be called in a hook. In a worker it is a no-op.
func (m *Manager) ReplaceWorker(ctx context.Context, ordinal int) error {
	ticket, err := m.side.replaceWorker(ordinal)
	if err == nil {
		_, err = wait(ctx, ticket)
	}
	if err != nil {
		err = fmt.Errorf("prefork: ReplaceWorker: %w", err)
	}
	return err
}

// SignalWorker sends sig to one worker, as SignalAllChildren does to all. Workers are
// named by their ordinals, since pids are used again. It returns a *NoWorkerError if
// no worker has that ordinal. In a worker it is a no-op. It panics if sig is not a
// signal of the system.
func (m *Manager) SignalWorker(ordinal int, sig os.Signal) error {
	if checkSignal("", sig) != nil {
		misuse("SignalWorker(%d, %v): not a signal of the system", ordinal, sig)
	}
	return m.side.signalWorker(ordinal, sig.(syscall.Signal))
}

// StopWorker sends one worker the stop signal; StopTimeout later it is killed. Unlike
// ReplaceWorker it does not wait for a replacement: the slot is empty until it gets
// one, at once after the worker's end. It returns a *NoWorkerError if no worker has
// that ordinal. In a worker it is a no-op.
func (m *Manager) StopWorker(ordinal int) error {
	return m.side.signalWorker(ordinal, m.cfg.stopSignal())
}

// SetReady makes a Command ready, whatever Config.Readiness has for it, and reports
// whether a worker that is starting or ready has that pid. It is for a program that
// finds out by itself, such as by a check of the Command's address. Workers of this
// program report that themselves: it returns false for them, and in a worker.
func (m *Manager) SetReady(pid int) bool { return m.side.setReady(pid) }

// NoWorkerError reports an ordinal that no worker has.
type NoWorkerError struct{ Ordinal int }

func (e *NoWorkerError) Error() string {
	return fmt.Sprintf("prefork: there is no worker with ordinal %d; it may have exited", e.Ordinal)
}

// wait waits for the answer to a command. The ticket is nil in a worker.
func wait(ctx context.Context, ticket *change.Ticket) (n int, err error) {
	if ticket == nil {
		return 0, nil
	}
	return ticket.Wait(ctx)
}

// ReaperPID returns the pid of the reaper above this process, which Config.Reaper
// or process 1 has, and 0 if there is none. With Config.ReaperKills it is the pid
// of the guard above the reaper. In both cases the program was started with it. It
// is safe for concurrent use, also before New.
func ReaperPID() int {
	if process.Reaper == nil {
		return 0
	}
	return cmp.Or(process.Guard, process.Reaper.PID())
}

// do has the loop call f in its next turn.
func (s *managerSide) do(f func()) bool {
	s.inbox.Do(f)
	return true
}

func (s *managerSide) ping(ctx context.Context) error { return s.inbox.Ping(ctx) }

// publishEvent logs an event, and passes it to Config.Observe and to those who
// follow.
func (l *loop) publishEvent(s stamped) {
	ctx := context.Background()
	level, msg, attrs := s.Event.line()
	if l.deferred.Enabled(ctx, level) {
		l.deferred.LogAttrs(ctx, level, msg, attrs...)
	}
	if l.cfg.Observe != nil {
		l.callHook("Observe", func() { l.cfg.Observe(s.Event) })
	}
	if len(s.to) > 0 {
		l.runHook("Follow", func() { s.to.Send(s.Record) })
	}
}

// ask returns the ticket of a command, which arrives at once or later.
func (s *managerSide) ask(r Request, how any) *change.Ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	ticket, due := s.changes.Ask(change.Kind(r), how)
	if due {
		s.arrive(ticket)
	}
	return ticket
}

// arrive adds a command whose turn has come to the signals that wait for the loop.
func (s *managerSide) arrive(ticket *change.Ticket) {
	r := Request(ticket.Kind)
	origin := map[Request]string{requestReload: "Manager.Reload was called", requestUpgrade: "Manager.RequestUpgrade was called"}[r]
	s.inbox.Signal(sigqueue.Arrival{Sig: r, Origin: origin, Request: ticket.ID})
}

// forwardOf returns what an arrival does; ok is false for a command that was
// answered already.
func (s *managerSide) forwardOf(a sigqueue.Arrival) (f Forward, ok bool) {
	if a.Request == 0 {
		return s.cfg.TrapSignals[a.Sig], true
	}
	s.mu.Lock()
	ticket := s.changes.Waiting(a.Request)
	s.mu.Unlock()
	switch {
	case ticket == nil:
		return Forward{}, false
	case ticket.Kind == change.Upgrade:
		return Forward{Upgrade: true}, true
	}
	return ticket.How.(Forward), true
}

// replacement is a worker that a caller of ReplaceWorker waits for.
type replacement struct {
	ticket               *change.Ticket
	slot, place, ordinal int // of the worker that is replaced
}

func (s *managerSide) replaceWorker(ordinal int) (*change.Ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workers[ordinal]
	if w == nil || w.Slot == noSlot || w.State != StateStarting && w.State != StateReady {
		return nil, &NoWorkerError{ordinal}
	}
	ticket, added := s.changes.Ask(change.Replace, ordinal)
	if added {
		r := replacement{ticket, w.Slot, w.place, ordinal}
		s.do(func() {
			if !s.isOpen(ticket) { // refused since
				return
			}
			s.loop.replacing = append(s.loop.replacing, r)
			s.loop.handle(pool.Event{Kind: pool.Recycle, ID: ordinal})
		})
	}
	return ticket, nil
}

// isOpen reports whether a command of ReplaceWorker was not answered yet.
func (s *managerSide) isOpen(ticket *change.Ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes.Waiting(ticket.ID) != nil
}

func (s *managerSide) signalWorker(ordinal int, n syscall.Signal) error {
	s.mu.Lock()
	known := s.workers[ordinal] != nil
	s.mu.Unlock()
	if !known {
		return &NoWorkerError{ordinal}
	}
	ev := sendEvent(n)
	ev.Kind, ev.ID = pool.SignalOne, ordinal
	s.command(ev)
	return nil
}

func (s *managerSide) setReady(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ordinal, w := range s.workers {
		if w.PID == pid && w.cell() == nil && w.State <= StateReady {
			s.command(pool.Event{Kind: pool.Ready, ID: ordinal})
			return true
		}
	}
	return false
}

// beginReload notes that a signal begins to replace the workers, and reports it.
func (s *managerSide) beginReload(a sigqueue.Arrival, f Forward) {
	kind := change.Restart
	if f.Rolling || f.Interval > 0 {
		kind = change.Reload
	}
	if f.Signal == nil {
		f.Signal = s.stop
	}
	s.mu.Lock()
	ticket, _ := s.changes.Ask(change.Reload, f)
	s.changes.BeginReload(change.Change{Kind: kind, Generation: s.generation + 1, Began: time.Now()}, ticket)
	s.settled = false
	report := s.stamp(ReloadEvent{Received: a.Sig, Origin: a.Origin})
	s.mu.Unlock()
	s.publish(report)
}

// reloadFailed reports that a reload has failed before a generation began.
func (s *managerSide) reloadFailed(err error) {
	s.mu.Lock()
	s.changes.CancelReload(time.Now(), fmt.Errorf("reload failed, keeping workers: %w", err))
	report := s.stamp(ReloadFailedEvent{Err: err})
	s.mu.Unlock()
	s.publish(report)
}

// rollFailed reports that a generation has failed.
func (l *loop) rollFailed(ev RollFailedEvent) {
	l.mu.Lock()
	l.changes.Failed(time.Now(), ev.Generation, l.generation, fmt.Errorf("generation %d failed, keeping generation %d: %w", ev.Generation, ev.Kept, ev.Err))
	report := l.stamp(ev)
	l.mu.Unlock()
	l.publish(report)
}

// checkSettled reports that the pool has become settled. It has not while a reload
// is under way that has not begun its generation.
func (l *loop) checkSettled() {
	if l.pool.Settled() {
		l.settle(l.pool.ServingGeneration(), l.pool.Max())
	}
}

// settle notes and reports that the pool is settled, on a generation and with a
// number of workers. SetMaxWorkers may have changed that number since.
func (s *managerSide) settle(gen, limit int) {
	s.mu.Lock()
	if s.settled || limit != s.max || s.changes.Pending() > s.generation {
		s.mu.Unlock()
		return
	}
	s.settled = true
	s.changes.Settled(time.Now(), gen)
	report := s.stamp(SettledEvent{Generation: gen})
	s.mu.Unlock()
	s.publish(report)
}

// beginUpgrade notes that an upgrade begins, and endUpgrade reports that it has
// ended, with the pid of the successor or an error.
func (s *managerSide) beginUpgrade() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ticket, _ := s.changes.Ask(change.Upgrade, nil)
	s.changes.BeginUpgrade(change.Change{Kind: change.Upgrade, Generation: s.generation, Began: time.Now()}, ticket)
	s.upgradeDue = pool.Never
}

func (s *managerSide) endUpgrade(ev Event, pid int, err error) {
	s.mu.Lock()
	s.changes.EndUpgrade(time.Now(), pid, err)
	report := s.stamp(ev)
	s.mu.Unlock()
	s.publish(report)
}

var (
	errStopping = errors.New("the Manager shuts down")
	errClosed   = errors.New("the Manager was closed")
	errWaiting  = errors.New("the program has called WaitAllChildren, which starts no workers")
)

// stoppingError is the answer to commands after a shutdown has begun.
func (l *loop) stoppingError() error {
	if n := l.successor; n != nil && n.tookOver {
		return fmt.Errorf("manager %d has taken over", n.proc.Pid())
	}
	return errStopping
}

// noteStopping notes that a shutdown begins, and refuses commands from then on.
func (s *managerSide) noteStopping(why error) {
	s.mu.Lock()
	if s.stopping.IsZero() {
		s.stopping = time.Now()
	}
	s.mu.Unlock()
	s.refuse(why)
}

// refuse ends the reload under way and refuses commands, until the next generation
// begins.
func (s *managerSide) refuse(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.Refuse(time.Now(), why)
	s.changes.Close(why)
}

// begins reports that the Manager starts its work, and ends that it has ended.
func (s *inProcessSide) begins() {
	if !s.begun {
		s.begun = true
		s.emit(StartedEvent{})
	}
}

func (s *inProcessSide) ends(err error) {
	if s.begun {
		s.begun = false
		s.emit(EndedEvent{Err: err})
	}
}

// publishEvent logs an event and passes it to those who follow.
func (s *inProcessSide) publishEvent(ev stamped) {
	level, msg, attrs := ev.Event.line()
	s.log.LogAttrs(context.Background(), level, msg, attrs...)
	ev.to.Send(ev.Record)
}

func (s *inProcessSide) follow(f func(Record)) (now Snapshot, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop = s.lockedFollow(f)
	return s.lockedSnapshot(), stop
}

// turn runs what other goroutines have asked for.
func (s *inProcessSide) turn() {
	s.inbox.BeginTurn()
	_, commands := s.inbox.Take()
	for _, command := range commands {
		command()
	}
}

func (s *inProcessSide) replaceWorker(ordinal int) (*change.Ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || s.last.info.Ordinal != ordinal {
		return nil, &NoWorkerError{ordinal}
	}
	ticket, added := s.changes.Ask(change.Replace, ordinal)
	if added {
		s.do(func() {
			if s.isOpen(ticket) {
				s.replaced = append(s.replaced, ticket)
				s.sendSignal(s.stop)
			}
		})
	}
	return ticket, nil
}

func (s *inProcessSide) signalWorker(ordinal int, n syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock() // in do, too: there is a turn before the next worker
	if s.last == nil || s.last.info.Ordinal != ordinal {
		return &NoWorkerError{ordinal}
	}
	s.do(func() { s.sendSignal(n) })
	return nil
}
