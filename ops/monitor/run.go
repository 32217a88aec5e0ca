//go:build unix

package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
)

// A Monitor keeps the services of a directory running. Its methods are safe for
// concurrent use, and only Run blocks.
type Monitor struct {
	cfg     Config
	log     *slog.Logger
	null    *os.File
	writer  *writer
	scripts *scripts
	rescan  chan struct{}
	stop    chan struct{} // closed by Shutdown
	watch   func(context.Context, scan.Config, <-chan struct{}, func([]scan.Change)) error

	// patience is for how long services may take longer than StopTimeout to stop until
	// the log names them.
	patience time.Duration

	stopOnce sync.Once
	observe  sync.Mutex // for Config.Observe
	changes  notifier   // of what Services returns

	mu       sync.Mutex
	entries  map[string]*entry
	scanned  bool // the first scan is complete
	stopping bool
	left     sync.WaitGroup // services
}

// An entry is a service in the directory, or one that was there and is ending.
type entry struct {
	kind    Kind
	svc     *service // nil if it has ended, or could not be started
	present bool
	exited  bool // by a command x
	retry   *time.Timer
	delay   time.Duration
	problem string // why it could not be started
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Monitor, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, errors.Join(errors.New("monitor: Config.Dir is required"), err)
	}
	for _, d := range cfg.Backoff {
		if d < 0 {
			return nil, fmt.Errorf("monitor: Config.Backoff has the negative delay %v; 0 means none", d)
		}
	}
	if cfg.Settle < 0 || cfg.Max < 0 {
		return nil, errors.New("monitor: Config.Settle and Config.Max must not be negative; 0 means the default")
	}
	if cfg.Style > StyleS6 {
		return nil, fmt.Errorf("monitor: there is no Config.Style %d", cfg.Style)
	}
	if cfg.Backoff == nil {
		cfg.Backoff = defaultBackoff
	}
	cfg.Dir = dir
	cfg.StopTimeout = cmp.Or(cfg.StopTimeout, defaultStopTimeout)
	cfg.Settle, cfg.Max = cmp.Or(cfg.Settle, defaultSettle), cmp.Or(cfg.Max, defaultMax)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Monitor{
		cfg: cfg, log: cfg.Logger, rescan: make(chan struct{}, 1), stop: make(chan struct{}),
		watch: scan.Watch, entries: make(map[string]*entry), patience: 5 * time.Second,
	}, nil
}

// Run keeps the services running until ctx ends or Shutdown is called, then stops
// all at once: each service, its finish, and then its logger, which reads to the
// end. It returns nil then, and an error if the directory cannot be watched. With
// Config.Once it returns when all services have ended. It may be called once.
func (m *Monitor) Run(ctx context.Context) (err error) {
	depth, err := marker.Depth(func(pid int) bool { return binary.Runs(pid, nil) })
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if m.null, err = os.Open(os.DevNull); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	defer m.null.Close()
	var helpers sync.WaitGroup
	m.writer, m.scripts = newWriter(m.changes.notify), newScripts(depth+1, m.null)
	helpers.Go(m.writer.loop)
	helpers.Go(m.scripts.loop)
	defer helpers.Wait()
	defer m.scripts.close()
	defer m.writer.close()

	watching, cancel := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() {
		watched <- m.watch(watching, scan.Config{Dir: m.cfg.Dir, Settle: m.cfg.Settle, Max: m.cfg.Max, Enter: m.cfg.Enter, Report: m.reportScan}, m.rescan, m.apply)
	}()
	select {
	case <-ctx.Done():
	case <-m.stop:
	case err = <-watched:
		err = fmt.Errorf("monitor: %w", err)
		watched <- nil
	}
	cancel()
	<-watched // no service comes any more
	m.stopAll()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (m *Monitor) reportScan(err error) {
	m.log.Warn("cannot watch the directory as it should be", "err", err)
}

// stopAll stops all services and waits for their end.
func (m *Monitor) stopAll() {
	m.mu.Lock()
	m.stopping = true
	for _, e := range m.entries {
		if e.retry != nil {
			e.retry.Stop()
		}
		if e.svc != nil {
			go e.svc.quit() // one whose disk hangs must not hold up the others
		}
	}
	m.mu.Unlock()
	waits := time.AfterFunc(max(m.patience, m.cfg.StopTimeout+m.patience), m.reportWait)
	defer waits.Stop()
	m.left.Wait()
}

// reportWait names the services that have not ended.
func (m *Monitor) reportWait() {
	var names []string
	for _, st := range m.Services() {
		switch {
		case st.PID != 0:
			names = append(names, fmt.Sprintf("%s (%v, pid %d)", st.Name, st.State, st.PID))
		case st.Log != nil:
			names = append(names, fmt.Sprintf("%s (pid %d)", st.Log.Name, st.Log.PID))
		}
	}
	m.log.Warn("stop waits: kill them, or give them a file timeout-kill", "services", strings.Join(names, ", "))
}

// apply acts on changes of the directory.
func (m *Monitor) apply(changes []scan.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
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
				e.svc.main.changed()
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
	e.present = false
	if e.retry != nil {
		e.retry.Stop()
	}
	if e.svc != nil {
		go e.svc.remove()
	} else {
		delete(m.entries, name)
	}
	if !e.exited {
		m.emit(Event{Kind: Removed, Service: name, Type: e.kind, Reason: reason})
	}
}

// start starts the service of an entry, unless the one before it is still ending.
// The caller holds mu.
func (m *Monitor) start(name string, e *entry) {
	if m.stopping || e.svc != nil {
		return
	}
	svc, err := m.startService(e.kind, name, func() { m.ended(name, e) })
	if err != nil {
		if e.problem != err.Error() { // each attempt would be a line
			e.problem = err.Error()
			m.emit(Event{Kind: PassedOver, Service: name, Type: e.kind, Reason: e.problem})
			m.log.Error("cannot supervise a service", "service", name, "err", err)
		}
		m.startLater(name, e)
		return
	}
	e.svc, e.delay, e.exited, e.problem = svc, 0, false, ""
	m.left.Add(1)
	m.emit(Event{Kind: Added, Service: name, Type: e.kind})
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

// ended notes that a service has ended. If its entry was removed and has come again
// meanwhile, it is started again.
func (m *Monitor) ended(name string, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	removed, fault := e.svc.main.isRemoved(), e.svc.main.fault
	e.svc = nil
	switch {
	case !e.present:
		delete(m.entries, name)
	case removed:
		m.start(name, e)
	case fault != nil && !m.stopping:
		e.problem, e.delay = fault.Error(), longestRetry // it may last
		m.emit(Event{Kind: PassedOver, Service: name, Type: e.kind, Reason: e.problem})
		m.startLater(name, e)
	case !m.stopping:
		e.exited = true
		m.emit(Event{Kind: Removed, Service: name, Type: e.kind, Reason: "it was asked to exit"})
	}
	m.changes.notify()
	m.lockedCheckOnce()
	m.left.Done()
}

// checkOnce ends Run if, with Config.Once, all services have ended.
func (m *Monitor) checkOnce() {
	go func() { // a unit calls it with its mutex held
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lockedCheckOnce()
	}()
}

func (m *Monitor) lockedCheckOnce() {
	if !m.cfg.Once || !m.scanned {
		return
	}
	for _, e := range m.entries {
		if e.svc != nil && !e.svc.main.isIdle() {
			return
		}
	}
	m.Shutdown()
}

// emit calls Config.Observe.
func (m *Monitor) emit(ev Event) {
	m.changes.notify()
	if m.cfg.Observe == nil {
		return
	}
	m.observe.Lock()
	defer m.observe.Unlock()
	ev.Time = time.Now()
	m.cfg.Observe(ev)
}

// Rescan looks at the directory at once, and starts services again that have ended
// by a command x.
func (m *Monitor) Rescan() {
	select {
	case m.rescan <- struct{}{}:
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, e := range m.entries {
		if e.retry != nil {
			e.retry.Stop()
		}
		if e.present {
			m.start(name, e)
		}
	}
}

// Shutdown makes Run stop all services and return.
func (m *Monitor) Shutdown() { m.stopOnce.Do(func() { close(m.stop) }) }

// Kill is Shutdown with SIGKILL for all processes, also loggers and finish scripts.
func (m *Monitor) Kill() {
	m.Shutdown()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	for _, e := range m.entries {
		if e.svc != nil {
			go e.svc.kill()
		}
	}
	if m.scripts != nil {
		m.scripts.killAll()
	}
}

// killAll kills the processes of a Manager, with leftover processes.
func killAll(pm *prefork.Manager) { pm.SignalAllChildren(syscall.SIGKILL) }

// Services returns the state of all services, sorted by name.
func (m *Monitor) Services() []Status {
	m.mu.Lock()
	all, running := make([]Status, 0, len(m.entries)), make([]*service, 0, len(m.entries))
	for name, e := range m.entries {
		if e.svc == nil {
			all = append(all, Status{Name: name, Kind: e.kind, Problem: e.problem})
		} else {
			running = append(running, e.svc)
		}
	}
	m.mu.Unlock()
	for _, svc := range running {
		st := svc.main.status()
		if svc.logger != nil {
			log := svc.logger.status()
			st.Log = &log
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Changed returns a channel that is closed when the state of a service has changed
// since the call, or when a service has come or gone.
func (m *Monitor) Changed() <-chan struct{} { return m.changes.next() }

func (m *Monitor) dir() string { return m.cfg.Dir }

// Do carries out a command as if its byte had been written to supervise/control of
// a service, or of a logger, "NAME/log". For a program the commands act in the same
// way. It returns an error if there is no such service. Unknown bytes are ignored.
// A command u starts a service again that has ended by a command x.
func (m *Monitor) Do(name string, command byte) error {
	u, err := m.find(name, command)
	if u != nil {
		u.command(command)
	}
	return err
}

// find returns the unit of a command; nil if there is nothing more to do.
func (m *Monitor) find(name string, command byte) (*unit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, isLog := strings.CutSuffix(name, "/log")
	e := m.entries[name]
	switch {
	case e == nil:
		return nil, fmt.Errorf("there is no service %s", name)
	case e.svc == nil && command == 'u' && e.present && !isLog:
		m.start(name, e)
		return nil, nil
	case e.svc == nil && e.problem != "":
		return nil, errors.New(e.problem)
	case e.svc == nil:
		return nil, fmt.Errorf("service %s has ended", name)
	case !isLog:
		return e.svc.main, nil
	case e.svc.logger == nil:
		return nil, fmt.Errorf("service %s has no logger", name)
	}
	return e.svc.logger, nil
}

// isIdle reports whether nothing of a unit runs, and nothing starts by itself.
func (u *unit) isIdle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !slices.ContainsFunc(u.slots, func(s *slot) bool { return !s.Idle() })
}

func (u *unit) isRemoved() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.removed
}
