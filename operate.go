package prefork

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prefork-go/prefork/internal/follow"
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

// publish logs an event, and passes it to Config.Observe and to those who follow.
func (l *loop) publish(s stamped) {
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
	s.loop.publish(report)
}
