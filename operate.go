package prefork

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/follow"
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

// Config returns a copy of the Config that New was given, with defaults in place
// of zero values. Changing it has no effect. MaxWorkers is the number at the
// start; see Manager.MaxWorkers for the present one.
func (m *Manager) Config() Config {
	c := m.cfg
	if c.MaxSpareWorkers == math.MaxInt {
		c.MaxSpareWorkers = 0 // no maximum
	}
	c.TrapSignals, c.Command = maps.Clone(c.TrapSignals), slices.Clone(c.Command)
	r := &c.Resources
	r.CPUs, r.Rlimits, r.Groups = slices.Clone(r.CPUs), slices.Clone(r.Rlimits), slices.Clone(r.Groups)
	return c
}

// Ping returns nil when the loop has completed a turn. It is for a watchdog: the
// loop turns unless a hook blocks, and only while a blocking call is under way.
// Otherwise Ping returns ctx's error when ctx ends. In a worker it returns nil at
// once. It blocks, and must not be called in a hook.
func (m *Manager) Ping(ctx context.Context) error { return m.side.ping(ctx) }

// Note reports a NoteEvent at the loop's next turn, so that events, log and
// journal have it in order: text is a command or a remark of the program, by is
// its author, "" for none. Line breaks are replaced by spaces. In a worker it is a
// no-op.
func (m *Manager) Note(by, text string) {
	ev := NoteEvent{By: oneLine(by), Text: oneLine(text)}
	m.side.do(func() { m.side.emit(ev) })
}

// ReaperPID returns the pid of the reaper above this process, which Config.Reaper
// or process 1 has, and 0 if there is none. It is safe for concurrent use, also
// before New.
func ReaperPID() int {
	if process.Reaper == nil {
		return 0
	}
	return process.Reaper.PID()
}

// do has the loop call f in its next turn.
func (s *managerSide) do(f func()) bool {
	s.inbox.put(func(in *inbox) { in.commands = append(in.commands, f) })
	return true
}

func (s *managerSide) ping(ctx context.Context) error {
	var turned chan struct{}
	s.inbox.put(func(in *inbox) {
		if in.turned == nil {
			in.turned = make(chan struct{})
		}
		turned = in.turned
	})
	select {
	case <-turned:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *managerSide) follow(f func(Record)) (now Snapshot, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	remove := s.feed.Add(f)
	return s.lockedSnapshot(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		remove()
	}
}

// stamped is an event with its number, and with those who follow.
type stamped struct {
	Record
	to follow.Followers[Record]
}

// stamp numbers an event. The caller holds mu, and has made the change of the view
// that the event reports: Follow then finds both or neither.
func (v *view) stamp(ev Event) stamped {
	seq, to := v.feed.Next()
	return stamped{Record{Seq: seq, Time: time.Now(), Event: ev}, to}
}

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

// emit is stamp and publish, for an event that reports no change of the view.
func (s *managerSide) emit(ev Event) {
	s.mu.Lock()
	report := s.stamp(ev)
	s.mu.Unlock()
	s.publish(report)
}

// beginReload notes that a signal begins to replace the workers, and reports it.
func (s *managerSide) beginReload(a sigqueue.Arrival) {
	kind := change.Restart
	if f := s.cfg.TrapSignals[a.Sig]; f.Rolling || f.Interval > 0 {
		kind = change.Reload
	}
	s.mu.Lock()
	ticket, _ := s.changes.Ask(change.Reload, a.Sig)
	s.changes.BeginReload(change.Change{Kind: kind, Generation: s.generation + 1, Began: time.Now()}, ticket)
	s.settled = false
	report := s.stamp(ReloadEvent{Received: a.Sig, Origin: a.Origin})
	s.mu.Unlock()
	s.publish(report)
}

// reloadFailed reports that a reload has failed before a generation began.
func (s *managerSide) reloadFailed(err error) {
	s.mu.Lock()
	s.changes.EndReload(time.Now(), fmt.Errorf("reload failed, keeping workers: %w", err))
	report := s.stamp(ReloadFailedEvent{Err: err})
	s.mu.Unlock()
	s.publish(report)
}

// rollFailed reports that a generation has failed.
func (l *loop) rollFailed(ev RollFailedEvent) {
	l.mu.Lock()
	l.changes.Failed(time.Now(), ev.Generation, fmt.Errorf("generation %d failed, keeping generation %d: %w", ev.Generation, ev.Kept, ev.Err))
	report := l.stamp(ev)
	l.mu.Unlock()
	l.publish(report)
}

// checkSettled reports that the pool has become settled. It has not while a reload
// is under way that has not begun its generation.
func (l *loop) checkSettled() {
	if !l.settled && l.pool.Settled() {
		l.settle(l.pool.ServingGeneration())
	}
}

// settle notes and reports that the pool is settled, on a generation.
func (s *managerSide) settle(gen int) {
	s.mu.Lock()
	if s.changes.Pending() > s.generation {
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
	now, stop = s.managerSide.follow(f)
	return s.withWorker(now), stop
}

// turn runs what other goroutines have asked for.
func (s *inProcessSide) turn() {
	_, commands, turned := s.inbox.take()
	for _, command := range commands {
		command()
	}
	if turned != nil {
		close(turned)
	}
}
