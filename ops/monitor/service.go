//go:build unix

package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/ops/monitor/internal/machine"
	"github.com/prefork-go/prefork/ops/supervise"
)

// A service is an entry of the directory: a unit, and that of its logger.
type service struct {
	mon    *Monitor
	name   string
	main   *unit
	logger *unit // nil for none
	pipe   *pipe
	ended  func() // called when nothing is left

	oneEnded bool // the service or its logger; guarded by the mutex of the latter
}

// openService opens the files of a service, which waits for its disk. It starts
// no process.
func (m *Monitor) openService(kind Kind, name string) (*service, error) {
	s := &service{mon: m, name: name, main: newUnit(m, kind, name)}
	s.main.ended = s.mainEnded
	if kind == Service {
		if err := s.open(); err != nil {
			s.close()
			return nil, err
		}
	}
	for _, u := range s.units() {
		m.disk.write(u)
	}
	return s, nil
}

// start starts the service, with commands that have come before. It returns those
// after an x, which are not for it any more. A command x, or quit, ends it; ended is
// called then, by another goroutine.
func (s *service) start(ended func(), waiting []command) (rest []command) {
	s.ended = ended
	if s.logger != nil {
		s.logger.ended = s.loggerEnded
		s.logger.begin()
	}
	s.main.begin()
	for rest = waiting; len(rest) > 0; rest = rest[1:] {
		// Nothing runs yet for which there could be a script.
		var err error
		if u := s.unit(rest[0]); u == nil {
			err = noLoggerError(s.name)
		} else if !u.all(machine.Event{Kind: machine.Command, Byte: rest[0].byte}) {
			break
		}
		rest[0].answer(err)
	}
	if s.logger != nil {
		s.logger.start()
	}
	s.main.start()
	return rest
}

// unit returns the unit that a command is for; nil if there is no logger.
func (s *service) unit(c command) *unit {
	if c.log {
		return s.logger
	}
	return s.main
}

// do passes a command to the service, or to its logger. It is answered when it is
// carried out. There is an error if there is no such unit, or if it has too many.
func (s *service) do(c command) error {
	u := s.unit(c)
	switch {
	case u == nil:
		return noLoggerError(s.name)
	case u.inbox.len() >= maxWaiting:
		return busyError(s.name)
	}
	u.inbox.put(func() {
		if u.command(c.byte) {
			c.answer(nil)
		} else {
			s.mon.late(s, c)
		}
	})
	return nil
}

// open opens the files of a service directory. A program has none.
func (s *service) open() (err error) {
	if s.main.set.unread { // whether there is a file down, for one
		return s.main.set.err
	}
	if s.main.sup, err = openSupervise(s.main.dir); err != nil {
		return err
	}
	if found, err := s.mon.disk.isExecutable(filepath.Join(s.main.dir, "log", "run")); err != nil || !found {
		return err
	}
	s.logger = newUnit(s.mon, Logger, s.name+"/log")
	if s.logger.set.unread {
		return s.logger.set.err
	}
	if s.logger.sup, err = openSupervise(s.logger.dir); err != nil {
		return err
	}
	if s.pipe, err = newPipe(); err != nil {
		return err
	}
	s.main.pipe, s.logger.pipe = s.pipe, s.pipe
	return nil
}

// openSupervise opens the directory supervise of a service or of a logger.
func openSupervise(dir string) (*supervise.Dir, error) {
	sup, err := supervise.Open(dir)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("%w: give this user the directory, or make supervise a symbolic link to one that it can write", err)
	}
	return sup, err
}

// begin has a unit wanted up, unless it has a file down. That is before commands.
func (u *unit) begin() {
	switch {
	case u.set.down:
	case u.mon.cfg.Once && u.kind != Logger:
		u.all(machine.Event{Kind: machine.Command, Byte: 'o'})
	default:
		u.all(machine.Event{Kind: machine.Command, Byte: 'u'})
	}
}

// start starts a unit. Commands of supervise/control wait for those before that came
// by the Monitor. They are read first, because the service may end, and close the
// files, as soon as it is kept running.
func (u *unit) start() {
	if u.sup != nil {
		u.sup.Commands(func(c byte) { u.inbox.call(func() { u.command(c) }) })
	}
	go u.keep()
}

// mainEnded ends the logger after the service. The last process that writes to the
// pipe has gone when the logger reads its end.
func (s *service) mainEnded() {
	l := s.logger
	if l == nil {
		s.finish()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.oneEnded {
		s.finish()
		return
	}
	s.oneEnded = true
	s.pipe.w.Close()
	s.pipe.drain = true
	again := pending(s.pipe.r.Fd()) > 0
	for _, slot := range l.slots {
		l.apply(slot, machine.Event{Kind: machine.Drain, Again: again})
	}
	if l.set.killAfter >= 0 {
		l.limit = time.AfterFunc(l.set.killAfter, func() { l.all(machine.Event{Kind: machine.Kill}) })
	}
}

// loggerEnded comes first only if everything is killed.
func (s *service) loggerEnded() {
	s.logger.mu.Lock()
	defer s.logger.mu.Unlock()
	if !s.oneEnded {
		s.oneEnded = true
		return
	}
	if n := pending(s.pipe.r.Fd()); n > 0 {
		s.logger.log.Error("the logger has not read everything", "bytes", n)
	}
	s.finish()
}

// finish closes everything when the files show the end.
func (s *service) finish() {
	end := func() {
		s.close()
		s.ended()
	}
	s.main.show(func() {
		if s.logger == nil {
			end()
		} else {
			s.logger.show(end)
		}
	})
}

// close is the opposite of open. The logger's ok goes first.
func (s *service) close() {
	for _, u := range []*unit{s.logger, s.main} {
		if u == nil || u.sup == nil {
			continue
		}
		u.mu.Lock()
		sup := u.sup
		u.sup = nil
		u.mu.Unlock()
		sup.Close()
	}
	if s.pipe != nil {
		s.pipe.w.Close()
		s.pipe.r.Close()
	}
}

// units are the unit of the service, and that of its logger.
func (s *service) units() []*unit {
	if s.logger == nil {
		return []*unit{s.main}
	}
	return []*unit{s.main, s.logger}
}

// quit stops the service for good; its logger follows.
func (s *service) quit() {
	s.main.look("tx")
	s.main.all(machine.Event{Kind: machine.Quit})
}

// remove is quit for a service whose entry has gone.
func (s *service) remove() {
	for _, u := range s.units() {
		u.mu.Lock()
		u.removed = true
		u.mu.Unlock()
	}
	s.quit()
}

func (s *service) kill() {
	for _, u := range s.units() {
		u.all(machine.Event{Kind: machine.Kill})
		u.mu.Lock()
		u.request(killAll)
		u.mu.Unlock()
	}
}

// isStuck reports whether nothing of a service goes on before a disk answers. Its
// processes do not count after a kill. A logger waits for the end of the service.
func (s *service) isStuck(killed bool) bool {
	main, l := s.main, s.logger
	if !killed && main.isAlive() {
		return false
	}
	return main.waits.Load() > 0 || l != nil && l.waits.Load() > 0 && (killed || !l.isAlive())
}

// isAlive reports whether a process of a unit is there, or is being started. Its end
// may not have been noted yet.
func (u *unit) isAlive() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(u.slots, func(s *slot) bool {
		pid := s.Status().PID
		return s.Starting() || pid != 0 && syscall.Kill(pid, 0) != syscall.ESRCH
	})
}

// status returns the state of a unit.
func (u *unit) status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	shown := u.oldest()
	st := Status{
		Name: u.name, Kind: u.kind, Status: shown.Status(), Ready: shown.ready, Notifies: u.using.readyFD != 0, GaveUp: shown.GaveUp(),
		Problem: u.problem, Tally: slices.Clone(u.tally), Ends: u.ends, LastEnd: u.lastEnd,
	}
	for _, s := range u.slots {
		if now := s.Status(); now.State == supervise.Run {
			st.PIDs = append(st.PIDs, now.PID)
		}
	}
	if u.pm != nil && st.State == supervise.Down && shown.Open() {
		all := u.pm.Snapshot()
		st.WaitsUntil = all.SpawnsHeldUntil
		for _, info := range all.Slots {
			if info.Slot == shown.index && info.WaitsUntil.After(st.WaitsUntil) {
				st.WaitsUntil = info.WaitsUntil
			}
		}
	}
	return st
}

// oldest returns the slot that the files show: the one whose run is the oldest, or
// one without run if there is none.
func (u *unit) oldest() *slot {
	best := u.slots[0]
	for _, s := range u.slots[1:] {
		a, b := s.Status(), best.Status()
		aRuns, bRuns := a.State == supervise.Run, b.State == supervise.Run
		if aRuns && (!bRuns || a.Since.Before(b.Since)) {
			best = s
		}
	}
	return best
}

// cleanUp ends what may still be on its way when a unit has ended.
func (u *unit) cleanUp() {
	u.dropLock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retry != nil {
		u.retry.Stop()
	}
	if u.limit != nil {
		u.limit.Stop()
	}
	if u.rewrite != nil {
		u.rewrite.Stop()
	}
}
