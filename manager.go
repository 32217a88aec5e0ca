package prefork

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/scoreboard"
)

// Manager keeps a pool of workers alive. In a worker it stands for what the worker was handed by the manager that
// started it. New makes one; the zero value is of no use.
type Manager struct {
	cfg       Config
	stop      syscall.Signal
	log       *slog.Logger
	events    *slog.Logger // of the loop: see relay
	origin    time.Time
	exe       string // by which the program that runs here is started again
	resources *resources.Settings
	kills     *resources.Kills // of workers, by the kernel
	onDisk    string           // where its file is found, or what has taken its name
	dir       string           // in which it was started
	depth     int
	busy      atomic.Pointer[string] // the blocking call that is under way
	inbox     inbox
	received  atomic.Value // of arrival: what ended the last Start

	interrupts atomic.Int32 // > 0: an interrupt counts as the shutdown signal

	// What follows belongs to the loop, the goroutine inside a blocking call.
	pool        *pool.Pool
	procs       proc.Table
	timer       *time.Timer
	inRun       bool
	stopping    stopping
	generations map[int]generation // that may still be spawned, by number
	fetched     *inherit.Binary    // what the next generation is started from; nil: the file that this process runs
	notSpawned  *SpawnError        // the last spawn that failed
	rests       map[int]*child     // by ordinal, those that are gone and have left something of their process groups
	steerDue    bool               // who is ready has changed
	watch       watch              // of the workers' load
	slowed      []*child           // that are read on later, since they flood the manager
	silent      []silent           // that have hung up and may live on
	cells       []*scoreboard.Cell // of workers that are gone, to be let go of
	gaveUp      bool               // the workers crashed and crashed
	successor   *successor         // that is on its way, or has taken over
	successors  uint64             // that were started so far
	succeeds    bool               // this Manager is a successor, and has not told yet how it came out
	inherits    bool               // and the one before it has not let go yet, or not been heard to
	pauses      int                // there were so many
	pausing     int                // the number of the one in force; 0 for none

	// mu guards what other goroutines read: the loop alone changes children and generation.
	mu         sync.Mutex
	children   map[int]*child // by ordinal
	standbys   int            // of these
	generation int
	max        int
	paused     bool      // as Pause and Resume have it
	passed     *handover // what Pass was last given
	steers     bool      // it is for this Manager to say which slots get new connections
	sockets    []*socket // in order of Listen

	started atomic.Bool // in a worker: Start was called
	worker  *Worker     // in a worker, from Start on
	foreign bool        // in a worker of another Manager of this program
}

// child is the manager's side of a worker.
type child struct {
	WorkerInfo
	proc      proc.Process
	unread    []byte // the beginning of a message
	heard     allowance
	flooded   bool // it has said more than that
	deaf      bool // it could not be told of a pause
	exe       *inherit.Binary
	cell      *scoreboard.Cell // nil for a Command
	watch     scoreboard.Watch
	busy      bool  // as the policy knows it
	ending    bool  // its process has begun to exit
	closed    []int // the listeners with a socket for each slot that it has closed, by index
	maxMemory int64 // it retires beyond
	spawned   pool.Time
	status    proc.Status
	usage     *syscall.Rusage
}

// New checks the configuration and makes a Manager, which from then on receives the signals of its table. In a worker
// it adopts what the manager handed on, and traps nothing.
//
// It fails with a *ConfigError; in a process that was started as a worker with a marker that cannot be used; where
// managers stand four deep, since then the program must be starting itself by mistake; and on systems without Unix
// processes, with errors.ErrUnsupported.
func New(cfg Config) (*Manager, error) {
	m, err := newManager(cfg, proc.New)
	if err == nil && self.role != inherit.Worker {
		m.trapTable()
		m.followReaper()
	}
	return m, err
}

func newManager(cfg Config, table func(func(proc.Note)) proc.Table) (*Manager, error) {
	if self.role == inherit.Worker {
		self.confine()
	}
	if self.role == inherit.Damaged {
		return nil, fmt.Errorf("prefork: this process was started by a manager, but cannot be what it should: %w", self.err)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, stop: cfg.stopSignal(), log: cfg.Logger, max: cfg.MaxWorkers, steers: true}
	if cfg.Name != "" {
		m.log = m.log.With("pool", cfg.Name)
	}
	if err := self.register(cfg.Name); err != nil {
		return nil, err
	}
	if self.role == inherit.Worker {
		m.foreign = cfg.Name != self.marker.Name
		return m, nil
	}
	m.cfg.TrapSignals, m.cfg.Command = maps.Clone(cfg.TrapSignals), slices.Clone(cfg.Command)
	m.children, m.rests, m.generations = make(map[int]*child), make(map[int]*child), make(map[int]generation)
	m.log, m.events = newRelay(m.log)
	if m.resources, err = cfg.Resources.check(cfg.Command != nil, cfg.Standby > 0); err == nil {
		m.kills = m.resources.Kills()
		err = m.prepare(table)
	}
	if err != nil {
		self.unregister(cfg.Name)
		return nil, err
	}
	if self.role == inherit.Successor && cfg.Name == self.marker.Name {
		m.succeed()
	}
	return m, nil
}

// prepare makes a manager of what is not a worker.
func (m *Manager) prepare(table func(func(proc.Note)) proc.Table) (err error) {
	if m.depth, err = inherit.Depth(); errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("prefork: %s has no signals and no sockets that a process could inherit: %w", runtime.GOOS, err)
	} else if err != nil {
		return fmt.Errorf("prefork: %w", err)
	}
	if m.depth >= inherit.MaxDepth {
		return fmt.Errorf("prefork: this would be manager number %d above one another: the program starts itself, most likely by mistake (is it its own Command? did a wrapper drop %s from its environment?)", m.depth+1, inherit.Env)
	}
	if m.exe, err = inherit.Executable(); err != nil {
		return fmt.Errorf("prefork: the file of the program that runs is not found (is /proc mounted?): %w", err)
	}
	if err := m.wantReaper(); err != nil {
		return err
	}
	m.dir, _ = os.Getwd() // now, since the program may change it
	m.onDisk, _ = inherit.OnDisk(self.args[0], m.dir)
	if self.role == inherit.Successor {
		m.onDisk = self.marker.Path // a symbolic link may be another by now
	}
	self.lookOutside() // now, so that what the program starts does not get them
	self.spareThreads()
	m.origin = time.Now()
	m.inbox.wake = make(chan struct{}, 1)
	m.timer = time.NewTimer(0)
	m.watch.look = pool.Never
	m.procs = table(func(n proc.Note) {
		m.inbox.put(func(in *inbox) { in.notes = append(in.notes, n) })
	})
	if name := m.procs.Name(); strings.HasPrefix(name, "portable (") {
		m.log.Warn("this system refuses pidfds; workers are watched by a thread each", "why", name)
	}
	if err := inherit.NoMemoryFiles(); err != nil {
		m.log.Warn("this system refuses memory files; the configuration and the status of workers are in nameless temporary files, which workers can change", "why", err)
	}
	m.pool = pool.New(pool.Config{
		Max:           m.cfg.MaxWorkers,
		Surge:         m.cfg.MaxSurge,
		Standby:       m.cfg.Standby,
		SpawnInterval: m.cfg.SpawnInterval,
		ErrRespawn:    m.cfg.ErrRespawnInterval,
		StopTimeout:   m.cfg.StopTimeout,
		ReadyTimeout:  m.cfg.Readiness.Timeout,
		Stop:          m.stop,
		Continue:      continueSignal,
		Dump:          m.dump(),
		MinSpare:      m.cfg.MinSpareWorkers,
		MaxSpare:      m.cfg.MaxSpareWorkers,
		Lifetime:      m.cfg.Recycle.MaxLifetime,
		CrashLoop:     m.cfg.CrashLoop.Failures,
		CrashWindow:   m.cfg.CrashLoop.Window,
		Group:         m.cfg.StopGroup,
		Jitter:        jitter,
	})
	return nil
}

// dump is the signal on which a Go program says where it is, and ends; not the one that a worker takes for the stop signal.
func (m *Manager) dump() syscall.Signal {
	if m.stop == syscall.SIGQUIT {
		return syscall.SIGABRT
	}
	return syscall.SIGQUIT
}

// Start keeps MaxWorkers workers alive until a trapped signal arrives, has it forwarded to the workers as the table
// says, and returns true; SignalReceived says which it was. A signal that arrived since the last Start ends it at once.
// Each Start begins a new generation: workers of an older one count as long as they live, and are replaced by workers
// of the new one when they end.
//
// In a worker it returns false, once: what follows is the worker's work, and Finish its end. In a worker of another
// Manager of the program it does not return. It blocks.
func (m *Manager) Start() (manager bool) {
	if self.role == inherit.Worker {
		m.startWorker()
		return false
	}
	defer m.enter("Start")()
	m.generate()
	return true
}

// StartFunc is Start with the worker's work as a function. In a worker it does not return: the worker exits with code 0
// after nil, with code 1 after an error, which is logged, and after a panic as Go does. Deferred calls of main do not
// run there. work may be nil where Config.Command is set.
func (m *Manager) StartFunc(work func(*Worker) error) {
	m.mustWork("StartFunc", work)
	if !m.Start() {
		m.work(work)
	}
}

// Run is the whole life of a prefork program: it starts generations of workers until ShutdownSignal arrives or ctx
// ends, sends the workers what the table says (or SIGTERM where it says nothing), waits until all are reaped, and
// returns nil. It traps ShutdownSignal and SIGINT in addition to the table while it runs. A signal that replaces the
// workers (one for which the table sends the stop signal) begins a new generation, with what Reload returns then; any
// other is forwarded within the generation. The table stays trapped when it has returned.
//
// Files of unix sockets that this Manager made are removed at its end. In a worker it does not return, as StartFunc. It
// blocks.
func (m *Manager) Run(ctx context.Context, work func(*Worker) error) error {
	m.mustWork("Run", work)
	if self.role == inherit.Worker {
		m.startWorker()
		m.work(work)
	}
	defer m.enter("Run")()
	defer m.trapShutdown()()
	m.inRun = true
	defer func() { m.inRun = false }()
	if err := m.reload(); err != nil {
		m.removeSocketFiles()
		return fmt.Errorf("prefork: Reload: %w", err)
	}
	defer m.stopWith(ctx)()
	for m.generate() != m.cfg.ShutdownSignal {
	}
	_, err := m.drain(context.Background())
	return err
}

// stopWith has the end of ctx count as the shutdown signal.
func (m *Manager) stopWith(ctx context.Context) (release func()) {
	deliver := func() {
		m.inbox.put(func(in *inbox) { in.signals.add(arrival{sig: m.cfg.ShutdownSignal, ctx: true}) })
	}
	delivered := make(chan struct{})
	stop := func() bool { return true }
	if ctx.Err() != nil {
		deliver() // before anything is spawned
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
		m.inbox.put(func(in *inbox) { // it is not to end a later Start
			in.signals = slices.DeleteFunc(in.signals, func(a arrival) bool { return a.ctx })
		})
	}
}

// WaitAllChildren waits until all workers are reaped and returns 0 and nil, or until ctx ends, and returns the number
// of those that are left and ctx's error. It spawns nothing and sends no signal of its own, but it finishes what was
// begun to be forwarded, forwards what arrives meanwhile, and kills workers that were told to stop StopTimeout ago.
// Start may be used again after it.
//
// It also ends the standbys (Config.Standby), and waits until they are reaped, and does not count them: then it can return
// 0 and ctx's error. With Config.StopGroup it also waits until nothing is left of the process groups of the workers, or that was killed;
// that is not counted either.
//
// After the shutdown signal the files of unix sockets that this Manager made are removed when no worker is left.
// It panics in a worker and in a hook. It blocks.
func (m *Manager) WaitAllChildren(ctx context.Context) (left int, err error) {
	if self.role == inherit.Worker {
		misuse("WaitAllChildren called in a worker, which has no workers; leave the loop only in the manager (where Start returned true)")
	}
	defer m.enter("WaitAllChildren")()
	return m.drain(ctx)
}

// Finish ends a worker with an exit code. Worker only: it panics in the manager. It does not return; deferred calls do
// not run.
func (m *Manager) Finish(code int) {
	if self.role != inherit.Worker {
		misuse("Finish called in the manager; it ends a worker, so call it only where Start returned false")
	}
	os.Exit(code)
}

// Worker is the worker that this process is; nil in the manager, and in a worker before Start has returned. Either
// process, any goroutine.
func (m *Manager) Worker() *Worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.worker
}

// SignalReceived is the trapped signal that ended the last Start or Run, or arrived last during a WaitAllChildren since
// (ShutdownSignal stays what it is until the next Start); nil before there was one, and in a worker. An interrupt
// that counts as ShutdownSignal is reported as that.
func (m *Manager) SignalReceived() os.Signal {
	a, _ := m.received.Load().(arrival)
	return a.sig
}

// Deliver does as if sig had been received: from a hook, a test, a control command. Start returns with it, also where
// the table does not name it; nothing is forwarded then. In a worker it does nothing. Any goroutine; it does not block.
func (m *Manager) Deliver(sig os.Signal) {
	if sig == nil {
		misuse("Deliver(nil): deliver a signal")
	}
	if self.role != inherit.Worker {
		m.arrive(sig)
	}
}

// Shutdown delivers ShutdownSignal, as Deliver does: from a hook, a test, a control command. Run ends by it. In a worker it
// does nothing. Any goroutine; it does not block.
func (m *Manager) Shutdown() { m.Deliver(m.cfg.ShutdownSignal) }

// SignalAllChildren sends sig to every worker at the loop's next turn: at once while a blocking call is under way, else
// when the next begins. Workers that are starting get it when they are ready, save for the stop signal. One
// that is sent the stop signal has been told to stop. Calling it again sends it again and does no more than that. In a
// worker it does nothing. Any goroutine; it does not block. It panics with what is no signal of the system.
func (m *Manager) SignalAllChildren(sig os.Signal) {
	if err := checkSignal("", sig); err != nil {
		misuse("SignalAllChildren(%v): not a signal of the system", sig)
	}
	if self.role != inherit.Worker {
		m.command(sendEvent(sig.(syscall.Signal)))
	}
}

// NumWorkers is the number of workers of all generations, those that were told to stop included, until they are
// reaped, without standbys; 0 in a worker. Any goroutine; it does not block.
func (m *Manager) NumWorkers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.children) - m.standbys
}

// MaxWorkers is the target number of workers. Either process, any goroutine; it does not block.
func (m *Manager) MaxWorkers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.max
}

// SetMaxWorkers changes the target number of workers, at the loop's next turn: new ones are spawned in the running
// generation, surplus ones (those in the highest slots) are told to stop. 0 stops all and keeps the Manager running. With
// ListenPerWorker, while an upgrade is under way, slots beyond those that had a socket when it began wait until it has failed. In
// a worker it does nothing. Any goroutine; it does not block. A negative number panics.
func (m *Manager) SetMaxWorkers(n int) {
	if n < 0 {
		misuse("SetMaxWorkers(%d): the number of workers cannot be negative", n)
	}
	if self.role == inherit.Worker {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.max = n
	m.inbox.put(func(*inbox) {})
}

// ManagerPID is the pid of the manager, in the manager and in its workers alike. Any goroutine; it does not block.
func (m *Manager) ManagerPID() int {
	if self.role == inherit.Worker {
		return self.marker.Manager
	}
	return os.Getpid()
}

// Generation is the number of the generation that runs or ran last: 0 before the first Start, then 1; in a worker, its
// own. Any goroutine; it does not block.
func (m *Manager) Generation() int {
	if self.role == inherit.Worker {
		return self.marker.Generation
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// Snapshot is a copy of the Manager's state at one moment, without workers in a worker. Any goroutine; it does not
// block.
func (m *Manager) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Snapshot{Name: m.cfg.Name, PID: m.ManagerPID(), Generation: m.generation, MaxWorkers: m.max, Standbys: m.standbys, Pausing: m.paused}
	if self.role == inherit.Worker {
		s.Generation = self.marker.Generation
	}
	s.Workers = make([]WorkerInfo, 0, len(m.children))
	for _, c := range m.children {
		info := c.WorkerInfo
		if info.Status = StatusNone; c.cell != nil {
			status := c.cell.Read()
			info.Status, info.Requests = status.C, status.Served
		}
		s.Workers = append(s.Workers, info)
	}
	for _, l := range m.sockets {
		s.Sockets = append(s.Sockets, SocketInfo{Network: l.network, Address: l.bound, PerWorker: l.group != nil})
	}
	slices.SortFunc(s.Workers, func(a, b WorkerInfo) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return s
}

// mustWork panics where there is nothing for a worker to do.
func (m *Manager) mustWork(call string, work func(*Worker) error) {
	if work == nil && m.cfg.Command == nil {
		misuse("%s(nil): a worker needs a function, or Config.Command", call)
	}
}

// enter marks a blocking call as under way, and panics where one is already.
func (m *Manager) enter(call string) (leave func()) {
	for !m.busy.CompareAndSwap(nil, &call) {
		if other := m.busy.Load(); other != nil {
			misuse("%s called while %s runs: one blocking call at a time, and none in a hook; from there use Deliver, SignalAllChildren or SetMaxWorkers", call, *other)
		}
	}
	return func() {
		m.closeCells()
		m.finishLog()
		m.busy.Store(nil)
	}
}
