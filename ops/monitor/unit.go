//go:build unix

package monitor

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/monitor/internal/machine"
	"github.com/prefork-go/prefork/ops/supervise"
)

// A unit is kept running by one Manager: a program, run of a service directory, or
// log/run. Its mutex guards the machines of its slots; the hooks of the Manager,
// the reader of supervise/control, scripts and timers call them. It is held while
// requests go to the Manager, so that they arrive in order, and never while
// something waits for a disk.
type unit struct {
	mon    *Monitor
	name   string
	kind   Kind
	dir    string         // of run; "" for a program
	path   string         // of a program
	pipe   *pipe          // to or from the logger; nil for none
	sup    *supervise.Dir // nil for none
	log    *slog.Logger
	writer writer
	inbox  queue        // commands
	ended  func()       // called when nothing is left
	fault  error        // why keep has given up; set before ended
	waits  atomic.Int32 // calls that wait for its disk

	mu       sync.Mutex
	set      settings
	pm       *prefork.Manager // nil between two
	using    managed          // the settings of pm
	running  context.Context  // ends with its Run
	refused  error            // why it could not have these
	slots    []*slot
	warned   map[string]string // by file: the fault that the log has
	problem  string            // why it cannot be started
	retry    *time.Timer       // ends a block
	delay    time.Duration     // of the last one
	limit    *time.Timer       // kills a logger that does not read to the end
	scripts  map[byte]bool     // by command byte: whether control has a script, as look has found
	hung     bool              // a look for scripts has not returned
	rewrite  *time.Timer       // has the files written again; nil while none could not be
	tally    []Death
	tallied  bool // the file must be written
	ends     int  // how often run has ended
	lastEnd  Death
	gone     int   // slots whose service has ended
	failing  bool  // the files cannot be written
	removed  bool  // the entry has gone
	starting *slot // whose start is under way

	lock *os.File // of lock-fd; belongs to the goroutine of the hooks
}

// A slot is one instance of run.
type slot struct {
	*machine.Machine
	index   int
	ordinal int // of the last start
	ready   bool
	exit    prefork.Exit // the last one
	finish  *script      // nil for none
	started func(int)
	output  func(prefork.Exit)
}

func newUnit(m *Monitor, kind Kind, name string) *unit {
	u := &unit{mon: m, kind: kind, name: name, scripts: make(map[byte]bool), log: m.log.With("service", name)}
	u.writer.crew = &m.crew
	switch kind {
	case Program:
		u.path = filepath.Join(m.cfg.Dir, name)
	default:
		u.dir = filepath.Join(m.cfg.Dir, name)
	}
	u.set = u.settings()
	for i := range max(1, u.set.instances) {
		s := &slot{Machine: machine.New(time.Now()), index: i}
		s.Logger, s.Scripts = kind == Logger, func(c byte) bool { return u.scripts[c] }
		u.slots = append(u.slots, s)
	}
	return u
}

// settings returns the settings as they are now.
func (u *unit) settings() settings {
	if u.kind != Program {
		return u.mon.disk.read(u.dir)
	}
	s := defaults()
	s.killAfter, s.group, s.backoff = u.mon.cfg.StopTimeout, true, u.mon.cfg.Backoff
	return s
}

// look looks for scripts control/C, before an event that may need them. A logger has
// none, as with runsv. Like a script, it has a limited time: then there are none.
func (u *unit) look(commands string) {
	u.mu.Lock()
	hung := u.hung
	u.mu.Unlock()
	if u.kind != Service || hung {
		return
	}
	done, answered := make(chan struct{}), false
	go func() {
		defer close(done)
		u.await(func() { u.find(commands) })
		u.mu.Lock()
		defer u.mu.Unlock()
		answered, u.hung = true, false
	}()
	limit := time.NewTimer(u.mon.patience)
	defer limit.Stop()
	select {
	case <-done:
		return
	case <-limit.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !answered {
		u.hung = true
		clear(u.scripts)
		u.log.Warn("the disk does not answer, commands are carried out without control scripts")
	}
}

// find is look without a limit.
func (u *unit) find(commands string) {
	for _, c := range []byte(commands) {
		found, _ := u.mon.disk.isExecutable(filepath.Join(u.dir, "control", string(rune(c))))
		u.mu.Lock()
		u.scripts[c] = found
		u.mu.Unlock()
	}
}

// command carries out a byte of supervise/control. It reports false if the unit has
// come to its end.
func (u *unit) command(c byte) bool {
	switch {
	case c == 'd' || c == 'x':
		u.look("t" + string(rune(c)))
	case strings.IndexByte("tkpchaiq12", c) >= 0:
		u.look(string(rune(c)))
	}
	return u.all(machine.Event{Kind: machine.Command, Byte: c})
}

// all applies an event to all slots. It reports false if they are gone.
func (u *unit) all(ev machine.Event) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone == len(u.slots) {
		return false
	}
	for _, s := range u.slots {
		if s.Starting() {
			u.endStart(s)
		}
		u.apply(s, ev)
	}
	return true
}

// changed restarts a program whose file has changed. One that is wanted down stays
// so.
func (u *unit) changed() {
	u.mu.Lock()
	st := u.slots[0].Status()
	u.mu.Unlock()
	if !st.Term { // it is stopping already
		u.command('t')
	}
	if st.Up {
		u.command('u')
	}
}

// endStart finds out that a start has failed of which the Manager reports nothing,
// because it tries again soon: the commands wait for it.
func (u *unit) endStart(s *slot) {
	pm, running, ordinal := u.pm, u.running, s.ordinal
	if pm == nil {
		return
	}
	go func() {
		if pm.Ping(running) != nil { // the start is over when it returns
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if s.Starting() && s.ordinal == ordinal {
			u.startFailed(s)
		}
	}()
}

// apply applies an event to a slot and carries out the actions. It reports whether
// run may start.
func (u *unit) apply(s *slot, ev machine.Event) (start bool) {
	for _, a := range s.Apply(time.Now(), ev) {
		switch a.Kind {
		case machine.Start:
			start = true
		case machine.Hold:
			u.request(func(pm *prefork.Manager) { pm.Hold(s.index) })
		case machine.Unhold:
			u.request(func(pm *prefork.Manager) { pm.Unhold(s.index) })
		case machine.Release:
			u.request(func(pm *prefork.Manager) { pm.Release(s.index) })
		case machine.Stop:
			u.request(func(pm *prefork.Manager) { pm.StopWorker(a.ID) })
		case machine.Signal:
			u.request(func(pm *prefork.Manager) { pm.SignalWorker(a.ID, signalOf(a.Byte, u.set.reload)) })
		case machine.Script:
			u.runScript(s, a)
		case machine.Finish:
			u.runFinish(s)
		case machine.KillFinish:
			u.mon.scripts.kill(s.finish)
		case machine.GaveUp:
			u.log.Warn("finish has exited with 125, giving up: it is not started before a command u")
			u.mon.emit(Event{Kind: GaveUp, Service: u.name, Type: u.kind})
		case machine.Gone:
			if u.gone++; u.gone == len(u.slots) {
				u.request((*prefork.Manager).Shutdown)
			}
		}
	}
	u.show(nil)
	if u.mon.cfg.Once && s.Idle() {
		u.mon.checkOnce()
	}
	return start
}

// request passes a request to the Manager. Between two there is none, and the next
// one begins as the machines are then.
func (u *unit) request(f func(*prefork.Manager)) {
	if u.pm != nil {
		f(u.pm)
	}
}

// keep runs one Manager after another until the service has ended.
func (u *unit) keep() {
	defer func() { u.ended() }()
	for {
		running, ended := context.WithCancel(context.Background())
		pm, err := u.newManager(running)
		if err != nil {
			ended()
			u.fail(err)
			return
		}
		var detach func()
		if u.mon.cfg.Attach != nil {
			detach = u.mon.cfg.Attach(u.name, pm)
		}
		pm.Run(context.Background(), nil)
		ended()
		u.mu.Lock()
		u.pm = nil
		done := u.gone == len(u.slots)
		u.mu.Unlock()
		if detach != nil {
			detach()
		}
		if err := pm.Close(); err != nil {
			u.fail(err)
			return
		}
		if done {
			u.cleanUp()
			return
		}
	}
}

// fail ends keep because of a fault of this process.
func (u *unit) fail(err error) {
	u.fault = err
	u.log.Error("cannot keep the service running", "err", err)
}

// newManager makes a Manager with the settings of the moment. If these are refused,
// it has the default ones, and the service is blocked.
func (u *unit) newManager(running context.Context) (*prefork.Manager, error) {
	var set settings
	u.awaitStart(func() { set = u.settings() })
	pm, refused := prefork.New(u.config(set.managed))
	if refused != nil {
		var err error
		if pm, err = prefork.New(u.config(defaults().managed)); err != nil {
			return nil, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.load(set)
	u.pm, u.running, u.using, u.refused = pm, running, u.set.managed, refused
	for _, s := range u.slots {
		if !s.Open() {
			pm.Hold(s.index)
		}
	}
	if u.gone == len(u.slots) {
		pm.Shutdown()
	}
	return pm, nil
}

func (u *unit) config(g managed) prefork.Config {
	cfg := prefork.Config{
		Name: u.name, MaxWorkers: len(u.slots), Command: []string{"./run"}, Dir: u.dir, Backoff: g.backoff, SuccessCodes: g.success,
		TrapSignals: prefork.Signals{}, StopSignal: g.stop, Untrapped: true, StopTimeout: g.killAfter, StopGroup: g.group,
		Readiness: prefork.Readiness{FD: g.readyFD}, CrashLoop: prefork.CrashLoop{Failures: -1}, Resources: g.resources,
		BeforeSpawn: u.beforeSpawn, AfterSpawn: u.afterSpawn, OnChildReap: u.onReap, Observe: u.observe, Logger: u.mon.log,
	}
	if g.readyFD != 0 {
		cfg.Readiness.Timeout = g.readyTimeout
	}
	if u.kind == Program {
		cfg.Command = []string{u.path}
	}
	return cfg
}

// load takes settings, and warns of bad files, once for each fault.
func (u *unit) load(set settings) {
	u.set = set
	u.set.instances = len(u.slots)
	warned := make(map[string]string, len(set.problems))
	for _, p := range set.problems {
		fault := p.content + ": " + p.err.Error()
		if warned[p.file] = fault; u.warned[p.file] != fault {
			u.log.Warn("bad file, using the default", "file", filepath.Join(u.dir, p.file), "content", p.content, "err", p.err)
		}
	}
	u.warned = warned
}
