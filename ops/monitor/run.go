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
	"github.com/prefork-go/prefork/ops/supervise"
)

// A Monitor keeps the services of a directory running. Its methods are safe for
// concurrent use, and only Run blocks.
type Monitor struct {
	cfg     Config
	log     *slog.Logger
	null    *os.File
	scripts *scripts
	rescan  chan struct{}
	asked   chan struct{} // closed after the scan that rescan asks for; mu guards it
	stop    chan struct{} // closed by Shutdown
	watch   func(context.Context, scan.Config, <-chan struct{}, func([]scan.Change)) error

	disk  disk
	crew  crew
	downs downs

	// patience is how long a disk is waited for until that is a problem, and how much
	// longer than StopTimeout services may take to stop until the log names them.
	patience time.Duration

	stopOnce sync.Once
	events   queue    // for Config.Observe
	changes  notifier // of the result of Services

	mu       sync.Mutex
	entries  map[string]*entry
	scanned  bool // the first scan is complete
	stopping bool
	killed   bool           // by Kill
	left     sync.WaitGroup // services
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
		watch: scan.Watch, entries: make(map[string]*entry), patience: 5 * time.Second, disk: theDisk(),
		downs: downs{found: make(map[string]bool), looks: make(map[string]*downLook)},
	}, nil
}

// Run keeps the services running until ctx ends or Shutdown is called, then stops
// all at once: each service, its finish, and then its logger, which reads to the
// end. It returns nil then, and an error if the directory cannot be watched. With
// Config.Once it returns when all services have ended. It may be called once.
//
// Run does not wait for services of which no process runs, and whose disk does not
// answer for 10 s. The log names them.
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
	scripts := newScripts(depth+1, m.null)
	m.mu.Lock()
	m.scripts = scripts
	m.mu.Unlock()
	helpers.Go(scripts.loop)
	defer m.events.wait()
	defer helpers.Wait()
	defer scripts.close()

	watching, cancel := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() {
		watched <- m.watch(watching, scan.Config{
			Dir: m.cfg.Dir, Settle: m.cfg.Settle, Max: m.cfg.Max, Enter: m.cfg.Enter,
			Rescan: m.takeRescan, Stalled: m.reportStall, Report: m.reportScan,
		}, m.rescan, m.apply)
	}()
	select {
	case <-ctx.Done():
	case <-m.stop:
	case err = <-watched:
		err = fmt.Errorf("monitor: %w", err)
		watched <- nil
	}
	cancel()
	m.stopAll()
	select {
	case <-watched:
	case <-time.After(m.patience):
		m.log.Warn("the directory does not answer, not waiting for it", "dir", m.cfg.Dir)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (m *Monitor) reportScan(err error) {
	m.log.Warn("cannot watch the directory as it should be", "err", err)
}

// reportStall notes that the scan waits for the disk of the directory, or goes on.
func (m *Monitor) reportStall(since time.Time, over bool) {
	attrs := []any{"dir", m.cfg.Dir, "since", since.Format(time.DateTime)}
	if over {
		m.log.Info("the directory answers again, it is scanned", append(attrs, "after", time.Since(since).Round(time.Millisecond).String())...)
		return
	}
	m.log.Error("the directory does not answer: no change of it is noticed until it does, the services stay as they are", attrs...)
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
			e.svc.main.inbox.put(e.svc.quit)
		}
	}
	m.mu.Unlock()
	waits := time.AfterFunc(max(m.patience, m.cfg.StopTimeout+m.patience), m.reportWait)
	defer waits.Stop()
	ended := make(chan struct{})
	go func() {
		m.left.Wait()
		close(ended)
	}()
	for stuck := false; ; {
		select {
		case <-ended:
			return
		case <-time.After(m.patience):
		}
		again := stuck // not only in a moment between two processes
		if stuck = m.isStuck(); stuck && again {
			m.abandon()
			return
		}
	}
}

// isStuck reports whether all services that are left wait for nothing but a disk.
func (m *Monitor) isStuck() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.svc != nil && !e.svc.isStuck(m.killed) {
			return false
		}
	}
	return true
}

// abandon leaves the services that are left to themselves.
func (m *Monitor) abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, e := range m.entries {
		if e.svc != nil {
			names = append(names, name)
			go e.svc.kill() // its logger, which waits for the end of the pipe
		}
	}
	if len(names) == 0 { // they have ended just now
		return
	}
	slices.Sort(names)
	m.log.Error("the disk of services does not answer, not waiting for them: their files in supervise are old, and finish may not have run", "services", strings.Join(names, ", "))
}

// reportWait names the services that have not ended.
func (m *Monitor) reportWait() {
	var names []string
	for _, st := range m.Services() {
		switch {
		case st.PID != 0:
			names = append(names, fmt.Sprintf("%s (%v, pid %d)", st.Name, st.State, st.PID))
		case st.Log != nil && st.Log.PID != 0:
			names = append(names, fmt.Sprintf("%s (pid %d)", st.Log.Name, st.Log.PID))
		case !st.Since.IsZero() && st.Problem == "":
			names = append(names, fmt.Sprintf("%s (%v, its files are being written)", st.Name, st.State))
		}
	}
	m.log.Warn("stop waits: kill them, or give them a file timeout-kill", "services", strings.Join(names, ", "))
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
		if e.opening && e.present || e.svc != nil && !e.svc.main.isIdle() {
			return
		}
	}
	m.Shutdown()
}

// emit has Config.Observe called.
func (m *Monitor) emit(ev Event) {
	m.changes.notify()
	if m.cfg.Observe == nil {
		return
	}
	ev.Time = time.Now()
	m.events.put(func() { m.cfg.Observe(ev) })
}

// Shutdown makes Run stop all services and return.
func (m *Monitor) Shutdown() { m.stopOnce.Do(func() { close(m.stop) }) }

// Kill is Shutdown with SIGKILL for all processes, also loggers and finish scripts.
func (m *Monitor) Kill() {
	m.Shutdown()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping, m.killed = true, true
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
		switch {
		case e.svc != nil:
			running = append(running, e.svc)
		case !e.isGone():
			all = append(all, e.status(name))
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

// Started reports whether the first scan is complete, and each service that it has
// found was started once, cannot be started, or is to stay down. One whose disk does
// not answer for 5 s cannot be started.
func (m *Monitor) Started() bool {
	m.mu.Lock()
	done := m.scanned
	for _, e := range m.entries {
		// One that could not be opened before waits for its next attempt.
		done = done && !(e.opening && e.present && e.problem == "")
	}
	m.mu.Unlock()
	return done && !slices.ContainsFunc(m.Services(), func(s Status) bool { return s.awaited() || s.Log != nil && s.Log.awaited() })
}

// awaited reports whether the first start of a service is still to come.
func (s *Status) awaited() bool {
	return s.Up && s.State == supervise.Down && s.Problem == "" && s.Ends == 0
}

// Changed returns a channel that is closed when the state of a service has changed
// since the call, or when a service has come or gone.
func (m *Monitor) Changed() <-chan struct{} { return m.changes.next() }

// isStopping reports whether a stop has been asked for.
func (m *Monitor) isStopping() bool {
	select {
	case <-m.stop:
		return true
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping // since the context of Run has ended
}

func (m *Monitor) dir() string { return m.cfg.Dir }

// isIdle reports whether nothing of a unit runs, and nothing starts by itself.
func (u *unit) isIdle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !slices.ContainsFunc(u.slots, func(s *slot) bool { return !s.Idle() })
}
