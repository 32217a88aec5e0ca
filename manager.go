package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/hook"
	"github.com/prefork-go/prefork/internal/inbox"
	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/logrelay"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/sockets"
)

// Manager runs a pool of worker processes. In a worker, the Manager returned by
// New gives access to the sockets and the bytes that the manager passed on;
// methods that control the pool are no-ops there.
//
// Its methods are safe for concurrent use, do not block, and take effect at the
// loop's next turn, except as noted. The zero value is not usable.
type Manager struct {
	cfg   Config
	log   *slog.Logger
	level *slog.LevelVar // see LogLevel
	side  side
}

// side is the part of a Manager that differs between the manager's process and a
// worker's.
type side interface {
	start(call string, work func(*Worker) error) (manager bool)
	run(ctx context.Context, work func(*Worker) error) error
	waitAllChildren(ctx context.Context) (left int, err error)
	upgrade(ctx context.Context) error
	close() error
	finish(code int)
	worker() *Worker
	signalReceived() os.Signal
	do(f func()) bool // at the loop's next turn; false in a worker
	emit(ev Event)    // in do
	ping(ctx context.Context) error
	follow(f func(Record)) (now Snapshot, stop func())
	ask(r Request, how any) *change.Ticket // nil in a worker
	replaceWorker(ordinal int) (*change.Ticket, error)
	signalWorker(ordinal int, sig syscall.Signal) error
	setReady(pid int) bool
	deliver(sig os.Signal, origin string)
	shutDown(origin string, err error)
	command(ev pool.Event)
	setMaxWorkers(n int)
	hold(slot int, how pool.Kind)
	setPaused(paused bool)
	setLogLevel(level slog.Level)
	pass(data []byte)
	snapshot() Snapshot
	queues() []QueueInfo
	numWorkers() int
	numActiveWorkers() int
	maxWorkers() int
	managerPID() int
	generationNumber() int
	listen(lc ListenConfig, network, address string) (net.Listener, error)
	listenPacket(lc ListenConfig, network, address string) (net.PacketConn, error)
	listenPerWorker(lc ListenConfig, network, address string) (net.Listener, error)
	listenPacketPerWorker(lc ListenConfig, network, address string) (net.PacketConn, error)
}

// managerSide is a Manager in the manager's process. The loop owns all state of
// workers; other goroutines read the view, and write to the inbox.
type managerSide struct {
	*Manager
	stop     syscall.Signal // the stop signal
	relay    *logrelay.Relay
	deferred *slog.Logger // of the loop: lines wait for the next flush
	sockets  *sockets.Set
	inbox    *inbox.Inbox
	loop     *loop         // nil in in-process mode
	publish  func(stamped) // logs an event and passes it on
	hooks    *hook.Runner

	busy       hook.Guard    // the blocking call that is under way
	received   atomic.Value  // of sigqueue.Arrival: the signal that ended the last Start
	failure    error         // of the shutdown; belongs to the blocking call
	traps      []func()      // end what New has begun: traps, following the reaper
	closed     chan struct{} // closed by Close
	interrupts atomic.Int32  // > 0: an interrupt counts as the shutdown signal

	mu sync.Mutex // guards the view
	view
}

// New checks the configuration and returns a Manager, which traps the signals of
// its table from then on. In a worker, it adopts the sockets and bytes that the manager
// passed on, and traps nothing.
//
// It fails with a *ConfigError, in a process that was started as a worker with a
// damaged marker, if managers run four levels deep (the program most likely
// starts itself by mistake), and with errors.ErrUnsupported on systems without
// Unix processes. As process 1, and with Config.Reaper, New executes the program
// again.
func New(cfg Config) (*Manager, error) {
	switch process.Role {
	case marker.Worker:
		process.Confine()
	case marker.Damaged:
		return nil, fmt.Errorf("prefork: this process was started as a worker or a successor, and its marker is damaged: %w", process.Err)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, level: new(slog.LevelVar)}
	if cfg.Name != "" {
		m.log = m.log.With("pool", cfg.Name)
	}
	if !process.Register(cfg.Name) {
		return nil, nameTaken(cfg.Name)
	}
	if process.Role == marker.Worker {
		m.level = &process.LogLevel
		m.side = &workerSide{Manager: m, foreign: cfg.Name != process.Marker.Name}
		return m, nil
	}
	if cfg.InProcess || os.Getenv(inProcessEnv) == "1" {
		s, err := newInProcessSide(m)
		if err != nil {
			process.Unregister(cfg.Name)
			return nil, err
		}
		m.side = s
		s.trapTable()
		return m, nil
	}
	s, err := newManagerSide(m)
	if err != nil {
		process.Unregister(cfg.Name)
		return nil, err
	}
	m.side = s
	s.trapTable()
	process.TrapsSignals(cfg.Name)
	s.followReaper()
	return m, nil
}

// nameTaken is the error of a second Manager with the same name. Workers, upgrades
// and the log know a Manager by it, and a program may still use the first one.
func nameTaken(name string) error {
	if name == "" {
		return configError("Name", "there is a Manager without a Name in this program already, also if its Run has returned: give each Manager a Name of its own, the same at each start, or Close the first one, or use it again")
	}
	return configError("Name", "there is a Manager named %q in this program already, also if its Run has returned: give each Manager a Name of its own, the same at each start, or Close the first one, or use it again", name)
}

func newManagerSide(m *Manager) (*managerSide, error) {
	settings, err := m.cfg.Resources.check(m.cfg.Command != nil, m.cfg.Standby > 0)
	if err != nil {
		return nil, err
	}
	depth, err := checkDepth()
	if err != nil {
		return nil, err
	}
	if process.RunsTestsAgain() {
		m.log.Warn("this is a test binary, and each worker runs its tests again: call preforktest.Main in TestMain, or set Config.InProcess")
	}
	exe, err := binary.Executable()
	if err != nil {
		return nil, fmt.Errorf("prefork: cannot find the file of the running program (is /proc mounted?): %w", err)
	}
	if loader, program, ok := binary.Loader(process.Args); ok {
		return nil, fmt.Errorf("prefork: %s was started through a loader, %s, and workers would run the loader alone: start the program itself", program, loader)
	}
	s := &managerSide{Manager: m, inbox: inbox.New(), closed: make(chan struct{}), stop: m.cfg.stopSignal(), view: view{workers: make(map[int]*worker), holds: make(map[int]bool), max: m.cfg.MaxWorkers, startedAt: time.Now()}}
	m.log, s.deferred, s.relay = logrelay.New(m.log)
	s.hooks = hook.NewRunner(m.log)
	if err := s.needReaper(exe); err != nil {
		return nil, err
	}
	inherited.ReadActivation() // before the program starts processes: they must not inherit these
	process.TakeDescriptors()
	proc.ReserveThreads()
	s.changes.Due = s.arrive
	s.loop = newLoop(s, exe, depth, settings)
	takesOver := process.Role == marker.Successor && m.cfg.Name == process.Marker.Name
	s.sockets = sockets.New(sockets.Config{
		Log: m.log, Inherited: inherited, Dir: presentDir(), MaxWorkers: s.maxWorkers,
		Command: m.cfg.Command != nil, Successor: process.Role == marker.Successor, Passive: takesOver,
		// The longer of the two: their sum may overflow.
		Patience: max(m.cfg.OrphanTimeout, m.cfg.OrphanTimeout+3*time.Second),
	})
	if name := s.loop.procs.Name(); strings.HasPrefix(name, "portable (") {
		m.log.Warn("pidfds refused, using one thread for each worker", "why", name)
	}
	if err := fd.CheckMemoryFiles(); err != nil {
		m.log.Warn("memory files refused, using unlinked temporary files, which workers can change", "why", err)
	}
	if takesOver {
		s.loop.becomeSuccessor()
	} else if process.Role == marker.Successor {
		go func() {
			select {
			case <-process.PredecessorGone(): // workers may wait for it
				s.inbox.Nudge()
			case <-s.closed:
			}
		}()
	}
	return s, nil
}

// Start keeps MaxWorkers workers alive until a trapped signal arrives, forwards
// it to the workers by the table, and returns true. SignalReceived returns that
// signal. A signal that arrived since the last Start ends it at once. Each Start
// begins a new generation: workers of older generations count as long as they
// live, and are replaced by workers of the new one when they exit.
//
// In a worker it returns false, once: the code that follows is the worker's work,
// which ends with Finish. In a worker of another Manager of the program it never
// returns. It blocks.
func (m *Manager) Start() (manager bool) { return m.side.start("Start", nil) }

// StartFunc is Start with the worker's work as a function. In a worker it does
// not return: the worker exits with code 0 after nil and with code 1 after an
// error, which is logged. A panic ends it as usual. Deferred calls of main do not
// run there. work may be nil if Config.Command is set.
func (m *Manager) StartFunc(work func(*Worker) error) {
	m.mustWork("StartFunc", work)
	m.side.start("StartFunc", work)
}

// Run is the whole life of a prefork program. It starts generations of workers
// until ShutdownSignal arrives or ctx ends. It then sends the workers the signal
// that the table has for ShutdownSignal (SIGTERM if it has none), waits until all
// are reaped, and returns nil, or the error of the shutdown: that of ShutdownWith,
// a *WorkerError, or ErrCrashLoop. While it runs it also traps ShutdownSignal and
// SIGINT. A signal for which the table forwards the stop signal begins a new
// generation, with the bytes that Reload returns then. Any other signal is
// forwarded within the generation. The table stays trapped after Run.
//
// Run removes the files of unix sockets that this Manager made. In a worker it
// does not return; see StartFunc. It blocks.
func (m *Manager) Run(ctx context.Context, work func(*Worker) error) error {
	m.mustWork("Run", work)
	return m.side.run(ctx, work)
}

// WaitAllChildren waits until all workers are reaped and returns 0 and nil, or 0
// and the error of the shutdown, as Run does. If ctx ends first, it returns the
// number of the remaining workers and ctx's error. It spawns nothing and sends no
// signal of its own. It completes forwarding that has begun, forwards signals
// that arrive, and kills workers StopTimeout after they were stopped. Start may
// be called again after it.
//
// It also stops the standbys (Config.Standby) and waits for them, without
// counting them, so it can return 0 and ctx's error. With Config.StopGroup it also
// waits for leftover processes, which do not count either.
//
// After the shutdown signal, it removes the files of unix sockets that this
// Manager made when no worker remains. It panics in a worker and in a hook. It
// blocks.
func (m *Manager) WaitAllChildren(ctx context.Context) (left int, err error) {
	return m.side.waitAllChildren(ctx)
}

// Close gives back what the Manager holds: its goroutines, its descriptors, the
// signals that it traps, and its Name, which a later New may use. Listeners and
// the files of unix sockets go, too. It is for a program that outlives its pools.
// It returns an error, and does nothing, while workers, standbys or leftover
// processes remain, or a blocking call is under way (also in its hooks), and while a
// successor that has taken over lives. A second call is a no-op.
//
// After Close, blocking calls panic, commands such as Reload return an error, and
// the other methods have no effect. In a worker it is a no-op.
func (m *Manager) Close() error {
	if err := m.side.close(); err != nil {
		return fmt.Errorf("prefork: Close: %w", err)
	}
	return nil
}

// Finish ends a worker with an exit code. It does not return, and deferred calls
// do not run. It panics in the manager.
func (m *Manager) Finish(code int) { m.side.finish(code) }

// Worker returns the worker that this process is. It returns nil in the manager,
// and in a worker before Start has returned.
func (m *Manager) Worker() *Worker { return m.side.worker() }

// SignalReceived returns the trapped signal that ended the last Start or Run, or
// the last one that arrived during a WaitAllChildren since. ShutdownSignal stays
// until the next Start. It returns nil before the first signal, and in a worker.
// An interrupt that counts as ShutdownSignal is reported as ShutdownSignal, and a
// command (Reload, RequestUpgrade) as a Request.
func (m *Manager) SignalReceived() os.Signal { return m.side.signalReceived() }

// NumWorkers returns the number of workers of all generations, without standbys.
// Workers that are stopping count until they are reaped. In a worker it returns
// 0.
func (m *Manager) NumWorkers() int { return m.side.numWorkers() }

// NumActiveWorkers returns the number of busy workers: those whose status is
// neither StatusNone nor StatusIdle. In a worker it returns 0.
func (m *Manager) NumActiveWorkers() int { return m.side.numActiveWorkers() }

// MaxWorkers returns the target number of workers.
func (m *Manager) MaxWorkers() int { return m.side.maxWorkers() }

// SetMaxWorkers changes the target number of workers: new ones are spawned in the
// running generation, surplus ones (those in the highest slots) are stopped. 0
// stops all and keeps the Manager running. During an upgrade with
// ListenPerWorker, slots that had no socket when it began stay empty until it has
// failed. Called in a hook, it counts before the next spawn, and in BeforeSpawn for
// this one. In a worker it is a no-op. It panics if n is negative.
func (m *Manager) SetMaxWorkers(n int) {
	if n < 0 {
		misuse("SetMaxWorkers(%d): the number of workers cannot be negative", n)
	}
	m.side.setMaxWorkers(n)
}

// Hold keeps a slot empty: it gets no worker after the one that it has, if any,
// which keeps working. A slot can be held before Run, and before there are so many
// slots; a hold lasts through reloads and until Release. A successor begins with
// none. It counts before the next spawn, as SetMaxWorkers does. In a worker and in
// in-process mode it is a no-op.
// It panics if slot is negative.
func (m *Manager) Hold(slot int) {
	if slot < 0 {
		misuse("Hold(%d): slots are numbered from 0", slot)
	}
	m.side.hold(slot, pool.HoldSlot)
}

// Release ends the hold of a slot, and also a slot's being done (Config.Restart),
// its backoff and the delay after failed spawns. An empty slot gets a worker at
// once, after SpawnInterval at most.
func (m *Manager) Release(slot int) { m.side.hold(slot, pool.ReleaseSlot) }

// Unhold ends the hold of a slot, as Release does, and keeps its backoff, which
// counts from the last spawn. It is for a program that has something to do between
// two workers of a slot: OnChildReap holds the slot, and Unhold follows. It is a
// no-op if the slot is not held.
func (m *Manager) Unhold(slot int) { m.side.hold(slot, pool.UnholdSlot) }

// Pause asks the workers to pause: each works on until it reaches
// Worker.Checkpoint, waits there, and then counts as paused in Snapshot and by a
// PausedEvent. Workers that are spawned during a pause begin paused. A worker
// that never reaches a checkpoint does not pause, and neither does a Command.
// Respawns, reloads and stops continue. Pausing again is a no-op, as is Pause in
// a worker. A successor (see Upgrade) does not begin paused: its program decides.
func (m *Manager) Pause() { m.side.setPaused(true) }

// Resume ends a pause.
func (m *Manager) Resume() { m.side.setPaused(false) }

// SetLogLevel changes the level of LogLevel in the manager and in its workers, also
// in those that are spawned later. It is for turning on debug messages while the
// program runs. A successor (see Upgrade) begins with slog.LevelInfo, as every
// manager: its program decides. In a worker it is a no-op.
func (m *Manager) SetLogLevel(level slog.Level) { m.side.setLogLevel(level) }

// LogLevel returns the level that SetLogLevel sets, at first slog.LevelInfo. The
// program should make its own logger with it, right after New, in the manager and in
// workers:
//
//	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: pm.LogLevel()}))
//
// It has no effect on Config.Logger, which was made before. A worker has the level
// of the Manager that started it, whichever Manager of the program is asked.
func (m *Manager) LogLevel() slog.Leveler { return m.level }

// Pass passes data to the workers of the generations that begin from now on,
// until it is called again. Worker.Passed returns it, also in a worker that is
// respawned an hour later. The data may have any size: workers read it from a
// descriptor. It is copied. In a worker Pass is a no-op.
func (m *Manager) Pass(data []byte) { m.side.pass(data) }

// ManagerPID returns the pid of the manager, in the manager and in its workers.
func (m *Manager) ManagerPID() int { return m.side.managerPID() }

// Generation returns the number of the generation that runs or ran last: 0
// before the first Start, then 1. In a worker it returns the worker's generation.
func (m *Manager) Generation() int { return m.side.generationNumber() }

// Snapshot returns a copy of the Manager's state at one moment. In a worker it
// lists no workers.
func (m *Manager) Snapshot() Snapshot { return m.side.snapshot() }

// mustWork panics if a worker would have nothing to do.
func (m *Manager) mustWork(call string, work func(*Worker) error) {
	if work == nil && m.cfg.Command == nil {
		misuse("%s(nil): a worker needs a function, or Config.Command", call)
	}
}

func (s *managerSide) start(call string, _ func(*Worker) error) (manager bool) {
	defer s.enter(call)()
	s.loop.start()
	s.loop.generate()
	return true
}

func (s *managerSide) run(ctx context.Context, _ func(*Worker) error) error {
	defer s.enter("Run")()
	defer s.trapShutdown()()
	s.loop.inRun = true
	defer func() { s.loop.inRun = false }()
	s.loop.start()
	if err := s.loop.reload(); err != nil {
		s.sockets.RemoveFiles()
		err = fmt.Errorf("prefork: Reload: %w", err)
		s.refuse(err)
		s.loop.end(err)
		return err
	}
	defer s.stopWith(ctx)()
	for s.loop.generate() != s.cfg.ShutdownSignal {
	}
	_, err := s.loop.drain(context.Background())
	return err
}

// start reports that the Manager starts its work, and end that it has ended.
func (l *loop) start() {
	if !l.started {
		l.started = true
		l.emit(StartedEvent{})
	}
}

func (l *loop) end(err error) {
	if l.started {
		l.started = false
		l.emit(EndedEvent{Err: err})
	}
}

func (s *managerSide) waitAllChildren(ctx context.Context) (left int, err error) {
	defer s.enter("WaitAllChildren")()
	return s.loop.drain(ctx)
}

func (s *managerSide) finish(int) {
	misuse("Finish called in the manager; it ends a worker, so call it only if Start has returned false")
}

func (s *managerSide) worker() *Worker { return nil }

func (s *managerSide) signalReceived() os.Signal {
	a, _ := s.received.Load().(sigqueue.Arrival)
	return a.Sig
}

func (s *managerSide) close() error {
	if s.isClosed() {
		return nil
	}
	if s.busy.Enter("Close") != nil {
		return errors.New("a blocking call is under way; Shutdown ends it")
	}
	defer s.busy.Leave()
	if s.isClosed() { // by another call, before busy was ours
		return nil
	}
	if err := s.loop.release(); err != nil {
		return err
	}
	s.releaseShared()
	return nil
}

func (s *managerSide) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// releaseShared gives back what a Manager in in-process mode has, too.
func (s *managerSide) releaseShared() {
	for _, release := range s.traps {
		release()
	}
	s.traps = nil
	close(s.closed)
	s.refuse(errClosed)
	s.sockets.StopListening()
	s.sockets.RemoveFiles()
	s.sockets.Close()
	process.Unregister(s.cfg.Name)
}

// command applies ev at the loop's next turn.
func (s *managerSide) command(ev pool.Event) {
	s.do(func() { s.loop.handle(ev) })
}

func (s *managerSide) setMaxWorkers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = s.settled && (n == s.max || s.loop == nil) // the loop finds out again
	s.max = n
	s.inbox.Nudge()
}

func (s *managerSide) hold(slot int, how pool.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holds, slot)
	if how == pool.HoldSlot {
		s.holds[slot] = true
	}
	s.command(pool.Event{Kind: how, N: slot})
}

// slotClosed reports whether a hook has closed a slot that is about to get a worker.
func (l *loop) slotClosed(slot int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.max == 0 || slot >= l.max || l.holds[slot] && !l.pool.Held(slot)
}

func (s *managerSide) setPaused(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
	s.inbox.Nudge()
}

func (s *managerSide) setLogLevel(level slog.Level) {
	s.level.Set(min(max(level, math.MinInt32), math.MaxInt32)) // as far as messages go
	s.inbox.Nudge()
}

func (s *managerSide) pass(data []byte) {
	p := launch.NewPassed(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = p
}

func (s *managerSide) numWorkers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.workers) - s.standbys
}

func (s *managerSide) numActiveWorkers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if w.cell() != nil && w.cell().Read().Busy() {
			n++
		}
	}
	return n
}

func (s *managerSide) maxWorkers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max
}

func (s *managerSide) managerPID() int { return os.Getpid() }

func (s *managerSide) generationNumber() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// enter marks a blocking call as under way, and panics if one is already.
func (s *managerSide) enter(call string) (leave func()) {
	if other := s.busy.Enter(call); other != nil {
		misuse("%s called while %s runs: one blocking call at a time, and none in a hook; from there use Deliver, SignalAllChildren or SetMaxWorkers", call, other.Name)
	}
	if s.isClosed() { // before busy was ours
		s.busy.Leave()
		misuse("%s called after Close", call)
	}
	s.loop.seen = s.loop.now() // nothing runs between two calls
	return func() {
		s.inbox.Idle()
		s.loop.closeCells()
		s.relay.Finish()
		s.busy.Leave()
	}
}
