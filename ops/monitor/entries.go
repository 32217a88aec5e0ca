//go:build unix

package monitor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
)

// An entry is a service in the directory, or one that was there and is ending. The
// mutex of the Monitor guards it. Nothing waits for a disk with that mutex held: the
// files of a service are opened by the crew, and then it begins.
type entry struct {
	kind    Kind
	svc     *service // nil if it has ended, or has not begun
	present bool
	exited  bool // by a command x
	retry   *time.Timer
	delay   time.Duration
	problem string // why it could not be started

	opening  bool // its files are being opened
	since    time.Time
	replaced bool      // its directory has gone since these were opened, and another may be there
	waiting  []command // that have come since then
}

// A command is a byte for a service, or for its logger.
type command struct {
	log  bool
	byte byte
	done chan error // gets its outcome
}

// answer gives the outcome of a command. Only the first one counts.
func (c command) answer(err error) {
	select {
	case c.done <- err:
	default:
	}
}

// maxWaiting is how many commands may wait for one service, whose disk hangs.
const maxWaiting = 64

// isGone reports whether an entry has gone, and only the files that are being opened
// for it keep it.
func (e *entry) isGone() bool { return e.svc == nil && !e.present }

// status returns the state of an entry whose service does not run.
func (e *entry) status(name string) Status {
	st := Status{Name: name, Kind: e.kind, Problem: e.problem}
	if e.opening {
		st.Since, st.Problem = e.since, cmp.Or(e.problem, "its directory is still being read")
		st.Up = true
		for _, c := range e.waiting {
			st.Up = st.Up && (c.log || strings.IndexByte("dxo", c.byte) < 0) || isUp(c)
		}
	}
	return st
}

// apply acts on changes of the directory.
func (m *Monitor) apply(changes []scan.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return
	}
	for _, c := range changes {
		name, kind := c.Entry.Name, Kind(c.Entry.Kind)
		e := m.entries[name]
		switch c.Op {
		case scan.Added:
			if e == nil {
				e = new(entry)
				m.entries[name] = e
			}
			e.kind, e.present, e.exited = kind, true, false
			m.start(name, e)
		case scan.Changed:
			m.emit(Event{Kind: Changed, Service: name, Type: kind})
			if e != nil && e.svc != nil {
				e.svc.main.inbox.put(e.svc.main.changed)
			}
		case scan.Removed:
			if e != nil {
				m.remove(name, e, c.Reason)
			}
		case scan.PassedOver:
			m.emit(Event{Kind: PassedOver, Service: name, Reason: c.Reason})
		}
	}
	m.scanned = true
	m.lockedCheckOnce()
}

func (m *Monitor) remove(name string, e *entry, reason string) {
	for _, c := range e.waiting {
		c.answer(fmt.Errorf("service %s was removed", name))
	}
	again := e.replaced // it has come again, and its service is ending since the first time
	e.present, e.replaced, e.waiting = false, true, nil
	if e.retry != nil {
		e.retry.Stop()
	}
	switch {
	case e.svc != nil && again:
	case e.svc != nil:
		e.svc.main.inbox.put(e.svc.remove)
	case !e.opening:
		delete(m.entries, name)
	}
	if !e.exited {
		m.emit(Event{Kind: Removed, Service: name, Type: e.kind, Reason: reason})
	}
}

// start starts the service of an entry, unless the one before it is still ending.
// The caller holds mu.
func (m *Monitor) start(name string, e *entry) {
	if m.stopping || e.svc != nil || e.opening {
		return
	}
	if e.retry != nil {
		e.retry.Stop()
	}
	e.opening, e.replaced, e.since = true, false, time.Now()
	kind := e.kind
	slow := time.AfterFunc(m.patience, func() { m.reportSlow(name, e) })
	m.crew.put(func() {
		defer slow.Stop()
		m.open(name, kind, e)
	})
}

// reportSlow notes that a service cannot be started yet, because its files have not
// been opened for a while.
func (m *Monitor) reportSlow(name string, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.opening && e.present && !m.stopping && e.problem == "" {
		m.cannotStart(name, e, errDisk)
		m.changes.notify()
	}
}

// cannotStart notes why a service cannot be started. Each reason is noted once: each
// attempt would be a line.
func (m *Monitor) cannotStart(name string, e *entry, err error) {
	if e.problem == err.Error() {
		return
	}
	e.problem = err.Error()
	m.emit(Event{Kind: PassedOver, Service: name, Type: e.kind, Reason: e.problem})
	m.log.Error("cannot supervise a service", "service", name, "err", err)
}

// open opens the files of a service, and begins it unless its entry has changed.
func (m *Monitor) open(name string, kind Kind, e *entry) {
	svc, err := m.openService(kind, name)
	if err == nil {
		if m.begin(name, e, svc) {
			return
		}
		svc.close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e.opening = false
	switch {
	case m.stopping:
	case !e.present:
		delete(m.entries, name)
	case e.replaced:
		m.start(name, e)
	default: // commands wait for the next attempt
		m.cannotStart(name, e, err)
		m.startLater(name, e)
	}
	m.changes.notify()
	m.lockedCheckOnce()
}

// begin runs a service whose files are open. It reports false if that must not be.
func (m *Monitor) begin(name string, e *entry, svc *service) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !e.present || e.replaced || m.stopping {
		return false
	}
	e.svc, e.opening, e.delay, e.exited, e.problem = svc, false, 0, false, ""
	m.left.Add(1)
	m.emit(Event{Kind: Added, Service: name, Type: e.kind})
	e.waiting = svc.start(func() { m.ended(name, e) }, e.waiting)
	m.lockedCheckOnce()
	return true
}

// startLater tries again to start a service that has another supervisor, or whose
// directory cannot be written.
func (m *Monitor) startLater(name string, e *entry) {
	e.delay = min(max(2*e.delay, firstRetry), longestRetry)
	e.retry = time.AfterFunc(e.delay, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.present {
			m.start(name, e)
		}
	})
}

// ended notes that a service has ended. If its entry was removed and has come again,
// it is started again.
func (m *Monitor) ended(name string, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := e.svc.main.fault
	e.svc = nil
	switch {
	case !e.present:
		delete(m.entries, name)
	case e.replaced:
		m.start(name, e)
	case fault != nil && !m.stopping:
		e.problem, e.delay = fault.Error(), longestRetry // it may last
		m.emit(Event{Kind: PassedOver, Service: name, Type: e.kind, Reason: e.problem})
		m.startLater(name, e)
	case !m.stopping:
		e.exited = true
		m.emit(Event{Kind: Removed, Service: name, Type: e.kind, Reason: "it was asked to exit"})
		// From a command u on they are for the next one.
		up := slices.IndexFunc(e.waiting, isUp)
		if up < 0 {
			up = len(e.waiting)
		}
		for _, c := range e.waiting[:up] {
			c.answer(endedError(name))
		}
		if e.waiting = e.waiting[up:]; len(e.waiting) > 0 {
			m.start(name, e)
		}
	}
	m.changes.notify()
	m.lockedCheckOnce()
	m.left.Done()
}

// Rescan looks at the directory at once, and starts services again that have ended
// by a command x. The channel is closed when the directory was looked at, unless Run
// has ended. Changes that were found then settle, as others do.
func (m *Monitor) Rescan() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked == nil {
		m.asked = make(chan struct{})
	}
	for name, e := range m.entries {
		if e.retry != nil {
			e.retry.Stop()
		}
		if e.present {
			m.start(name, e)
		}
	}
	select {
	case m.rescan <- struct{}{}:
	default:
	}
	return m.asked
}

// takeRescan takes the requests of Rescan, which the scan that begins now fulfils.
func (m *Monitor) takeRescan() (scanned func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return func() {
		if asked != nil {
			close(asked)
		}
	}
}

// Do passes a command to a service, or to a logger, "NAME/log", as if its byte had
// been written to supervise/control. For a program the commands act in the same way.
// Commands to one service are carried out in order, and Do returns when its own is,
// or after 100 ms if that must wait, as for a disk. It returns an error if there is no
// such service or logger, if that is not known after 100 ms, and if 64 commands wait
// for the disk of the service already. Unknown bytes are ignored. A command u starts
// a service again that has ended by a command x.
func (m *Monitor) Do(name string, c byte) error {
	name, isLog := strings.CutSuffix(name, "/log")
	cmd := command{isLog, c, make(chan error, 1)}
	m.mu.Lock()
	err := m.lockedDo(name, cmd)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case err = <-cmd.done:
		return err
	case <-timer.C:
		return m.withdraw(name, cmd)
	}
}

// withdraw takes a command for a logger back if the service has not begun: there may
// be no logger.
func (m *Monitor) withdraw(name string, cmd command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case err := <-cmd.done: // in this moment
		return err
	default:
	}
	e := m.entries[name]
	if !cmd.log || e == nil || e.svc != nil {
		return nil
	}
	i := slices.Index(e.waiting, cmd)
	if i < 0 {
		return nil
	}
	e.waiting = slices.Delete(e.waiting, i, i+1)
	return fmt.Errorf("service %s is still being read, and may have no logger: try again later", name)
}

// lockedDo passes a command on, which is answered when it is carried out.
func (m *Monitor) lockedDo(name string, cmd command) error {
	e := m.entries[name]
	switch {
	case e == nil || e.isGone():
		return fmt.Errorf("there is no service %s", name)
	case len(e.waiting) >= maxWaiting:
		return busyError(name)
	case e.opening:
		e.waiting = append(e.waiting, cmd)
		return nil
	case e.svc == nil && e.present && isUp(cmd):
		e.waiting = append(e.waiting, cmd)
		m.start(name, e)
		return nil
	case e.svc == nil && e.problem != "":
		return errors.New(e.problem)
	case e.svc == nil:
		return endedError(name)
	}
	if err := e.svc.do(cmd); err != nil {
		return err
	}
	if e.replaced && e.present { // the next one begins with it, too
		e.waiting = append(e.waiting, cmd)
	}
	return nil
}

func isUp(c command) bool { return !c.log && c.byte == 'u' }

func endedError(name string) error { return fmt.Errorf("service %s has ended", name) }

func noLoggerError(name string) error { return fmt.Errorf("service %s has no logger", name) }

func busyError(name string) error {
	return fmt.Errorf("service %s is busy: %d commands wait for its disk, try again when that answers", name, maxWaiting)
}

// late takes a command for a service that has come to its end before the command
// was carried out.
func (m *Monitor) late(s *service, c command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	switch e := m.entries[s.name]; {
	case e == nil || !e.present:
		err = endedError(s.name)
	case slices.Contains(e.waiting, c): // the next one has it already
		return
	case e.replaced:
		err = endedError(s.name)
	case e.svc == s && len(e.waiting) >= maxWaiting:
		err = busyError(s.name)
	case e.svc == s:
		e.waiting = append(e.waiting, c)
		return
	default:
		if err = m.lockedDo(s.name, c); err == nil {
			return
		}
	}
	c.answer(err)
}
