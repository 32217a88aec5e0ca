// Package prefork keeps a pool of worker processes: a Manager starts its own program again MaxWorkers times, keeps the
// workers alive, and maps each signal that it receives to one for the workers by a table, so that reload and shutdown
// are a few plain lines in the program's own main loop. Listening sockets are bound once and inherited. It is a port of
// Perl's Parallel::Prefork.
//
//	func main() {
//		pm, err := prefork.New(prefork.Config{MaxWorkers: 4, TrapSignals: prefork.Signals{
//			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop
//			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers
//		}})
//		if err != nil {
//			log.Fatal(err)
//		}
//		for pm.SignalReceived() != syscall.SIGTERM {
//			if !prefork.IsWorker() {
//				pm.Pass(loadConfig()) // read once for each generation of workers, in the manager
//			}
//			pm.StartFunc(func(w *prefork.Worker) error { return work(w.Context(), w.Passed()) })
//		}
//		pm.WaitAllChildren(context.Background())
//	}
//
// [Manager.Run] is the same loop in one call, [Manager.Start] its parts.
//
// # What runs twice
//
// A worker is not a fork of the manager but a new process of the same program: main runs again in every worker, up to
// Start, StartFunc or Run, and there the worker turns off. So what stands before it runs once in the manager and once
// in each worker. The library's own calls do the right thing in both: New adopts what the manager handed on, Listen
// returns the socket that the manager bound, Pass does nothing. What must happen only once (a pid file, a migration)
// belongs behind a test of [IsWorker]. Deferred calls of main do not run in a worker, which ends inside Start's
// callback by os.Exit.
//
// # Processes and goroutines
//
// In the manager one goroutine owns all state: the one that is inside a blocking call (Start, StartFunc, Run,
// WaitAllChildren, Upgrade). It spawns, reaps, forwards signals and runs the hooks. Between two blocking calls nothing of that
// happens, and nothing is lost: signals and ended workers wait for the next call. All other methods may be called from
// any goroutine, do not block, and take effect at the loop's next turn.
package prefork

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/reaper"
)

// Config says what a Manager does. The zero value is a pool of 10 workers that ends on SIGTERM. New copies it.
type Config struct {
	// Name names the pool in logs. Several Managers in one program must carry different names.
	Name string

	// MaxWorkers is the number of workers that are kept alive; 0 means 10. Manager.SetMaxWorkers changes it.
	MaxWorkers int

	// SpawnInterval is the pause between two spawns, so that many workers do not start at one moment; 0 means none. A
	// worker that takes the place of one that ended badly in the running generation does not wait for it, but as
	// ErrRespawnInterval says: not at all where pacing is off.
	SpawnInterval time.Duration

	// ErrRespawnInterval spaces the spawns of a slot whose workers end badly soon after their start: the next spawn
	// comes no sooner than this after the last, then after 2, 4, 8 … times this, at most a minute (or this, where it is
	// longer), give or take a fifth. A slot whose workers end cleanly at once is spawned twice for nothing, then once
	// in this time. 0 means 1 s; negative turns pacing off, save for spawns that fail, which are never tried in a
	// tight loop.
	ErrRespawnInterval time.Duration

	// TrapSignals is what the Manager does with each signal. nil means {SIGTERM: {Signal: SIGTERM}}. A table that is
	// given replaces that, and an empty one traps nothing.
	TrapSignals Signals

	// ShutdownSignal ends Run, and goes before all other signals that wait; nil means SIGTERM. Where the table names
	// it and not SIGINT, an interrupt (Ctrl-C) counts as this signal, unless interrupts were ignored when the program
	// was started; a second interrupt kills the workers that are left. What the table sends for it, or SIGTERM where
	// it sends nothing, is the stop signal: a worker that is sent it, by whatever path, has been told to stop.
	ShutdownSignal os.Signal

	// StopTimeout is how long a worker that was told to stop may take; then it is killed. Each worker has its own
	// clock. 0 means 30 s, negative means for ever.
	StopTimeout time.Duration

	// StopGroup has the whole process group of a worker told to stop and killed, not the worker alone: also what a worker has
	// started, and what that has, unless it has left the group (as by setsid). Other signals go to the worker alone.
	// Workers lead groups of their own; where BeforeSpawn's Attr puts one into a group of others, that is never signalled.
	//
	// What is left of a group when its worker has ended, for whatever reason, is told to stop if it was not told with the
	// worker, and killed StopTimeout after it was told. It is no worker any more: NumWorkers does not count it, and the slot
	// is spawned again. But Run and WaitAllChildren do not end before it is gone or killed. What has ended counts until it
	// was waited for, by process 1 as a rule. Nothing tells when that is, so the manager looks, from 100 down to 2 times a
	// second, while there is such a rest.
	//
	// Where the system cannot signal a group without its leader (Linux before 6.9, and systems other than Linux), what is left is
	// killed as soon as the worker has ended. For those a worker should itself wait for what it has started.
	StopGroup bool

	// SameGroup leaves workers in the process group of the manager, where each otherwise leads one of its own: then they are in
	// the terminal's foreground as the manager is, and can read from it, as a debugger of a worker does. What the terminal
	// sends to the group (Ctrl-C, Ctrl-Z) reaches them too, and what sends a signal to the manager's group does.
	SameGroup bool

	// Readiness says when a worker counts as ready, and how long that may take.
	Readiness Readiness

	// MinSpareWorkers turns on sizing by load where it is > 0: as many workers are kept as leave at least so many of them
	// idle, at most MaxWorkers. Workers say by Worker.SetStatus whether they are busy. What exceeds MaxSpareWorkers
	// is told to stop, the youngest idle worker first, one each SpawnInterval; busy ones never are. (One that becomes busy in that very
	// moment finishes what it has begun, as all that are told to stop.)
	MinSpareWorkers int
	// MaxSpareWorkers is how many workers may be idle; 0 means all.
	MaxSpareWorkers int

	// Standby is how many workers are started ahead, beside MaxWorkers, and parked in Start. When a worker dies, or more are
	// wanted, a standby that has got there takes the place at once, and another is started behind it; the pace of a slot
	// whose workers crash (ErrRespawnInterval) holds back that one instead. A standby belongs to its generation: when Start
	// returns, standbys are told to stop, and the next generation has its own. It counts neither as a worker nor as a spare
	// one, but the hooks and Observe tell of it, with Slot -1 until it is given one. Slot and everything that comes
	// with it (the socket of ListenPerWorker, its CPUs) is there when Start returns in the worker. With Readiness.Explicit
	// that is before the worker gets ready, so what takes time belongs before Start then. Signals that are forwarded
	// are kept for it. 0 means none. It is not for a Command, which cannot be parked, nor together with
	// Resources.Chroot and CPUsPerWorker.
	Standby int

	// Recycle says when a worker retires.
	Recycle Recycle
	// Stuck says when a worker is taken for stuck.
	Stuck Stuck
	// CrashLoop says when the Manager gives up.
	CrashLoop CrashLoop

	// Resources of a worker: CPU, memory, user … A Command can have those that the start of a process can set.
	Resources Resources

	// MaxSurge is how many workers may be starting or ready above MaxWorkers while a signal with Forward.Rolling replaces
	// them: how many are replaced at a time. 0 means 1.
	MaxSurge int

	// ReloadBinary has the workers of each generation but the first run the program's file as it is on disk when the signal comes
	// that replaces the workers, so that a deploy needs no new manager; else they run the file that the manager runs, on Linux also where another has
	// taken its name. The file is looked at before anybody is told to stop: if it is missing, cut short or cannot be
	// run, ReloadFailedEvent says so and the workers go on. It stays open: a worker that is respawned runs what
	// its generation ran, whatever became of the file. Manager.Upgrade replaces the manager, too.
	ReloadBinary bool

	// UpgradeTimeout is how long a successor may take until all its workers are ready; see Manager.Upgrade. 0 means 60 s,
	// negative means for ever.
	UpgradeTimeout time.Duration

	// OrphanTimeout is how long a worker lives after its manager died: its Context ends at once, and what has not ended
	// after this time is ended. 0 means 1 s. A worker that never called Context is ended at once. Programs that are
	// run by Command are killed by the kernel, where it can (Linux, FreeBSD; not setuid programs).
	OrphanTimeout time.Duration

	// Reaper has the program run below a reaper: a process that waits for all processes whose parents have ended before them,
	// passes signals on to the manager, and ends as the manager does; with an upgrade, as the last of them. It runs nothing of
	// the program. Where the program is the first process of a container (process 1), which has to do that, there always is
	// one, from before main. Elsewhere New executes the program anew for it, so that what stands before New runs
	// once more, in the directory and the environment as they are then; a second New finds it there. The pid of the reaper is
	// the one that the program was started with, and stays through upgrades. On Linux.
	Reaper bool

	// Reload is called by Run, in the manager, before the first generation and when a signal comes that replaces the
	// workers; its bytes are what Worker.Passed returns in the generation that follows. When it fails the first time,
	// Run returns its error; later the error is logged, nobody is signalled and the workers go on. nil passes nothing.
	Reload func() ([]byte, error)

	// Command is a program with its arguments that is run as the worker, instead of this one: in any language, and not
	// knowing of the library. It is looked up in PATH when it is spawned. The functions of Run and StartFunc may then
	// be nil, and are not called. It inherits the Manager's sockets, and is told of them by SERVER_STARTER_PORT, and of
	// its generation by SERVER_STARTER_GENERATION, so that programs written for Server::Starter run as they are.
	Command []string
	// ListenFDs tells a Command of its sockets by LISTEN_FDS and LISTEN_PID, too, as systemd does. It is then started by
	// way of a second start of this program, which knows its own pid: some milliseconds, in which a stop signal finds
	// that program. LISTEN_FDS counts Spawn.Files, too, which come first.
	ListenFDs bool

	// BeforeSpawn is called before every attempt to spawn, also one that then fails. This and the three below are hooks:
	// they run in the manager, in the goroutine of the blocking call, one at a time, so what they write can be read when
	// that call has returned. They may call every method of the Manager that does not block. While one runs, nothing else
	// of the pool moves. A panic in a hook ends the manager as any panic does; a program that recovers it may lose sight
	// of workers.
	BeforeSpawn func(*Manager, *Spawn)
	// AfterSpawn is called after every spawn that succeeded, with the worker's pid; the worker is already counted.
	AfterSpawn func(*Manager, int)
	// OnChildReap is called after every worker that was reaped; it is no longer counted.
	OnChildReap func(*Manager, Exit)
	// Observe is called with every change of state, each once and in order.
	Observe func(Event)

	// Logger gets one line for every change of state; nil means slog.Default().
	Logger *slog.Logger
}

// Recycle retires workers: such a worker is replaced as by a rolling reload, and goes on until its replacement is ready. From
// each limit up to a fifth is taken off by chance, for each worker, so that those that started together do not retire
// together. At most Config.MaxSurge are replaced at a time. A zero field means never.
type Recycle struct {
	MaxRequests int           // once Worker.Served has counted so many
	MaxLifetime time.Duration // at this age, from when it was ready
	MaxMemory   int64         // once it uses more bytes of memory that is its own; looked at every two seconds; on Linux
}

// Stuck finds workers that are busy and have not beaten (Heartbeat, Served, SetStatus) for Timeout: such a worker is sent
// SIGQUIT (SIGABRT, where QUIT is the stop signal), on which a Go program says where its goroutines are, and SIGKILL half a second
// later. Time in which the manager itself was held up, or the worker has paused, does not count. 0 means never.
type Stuck struct{ Timeout time.Duration }

// CrashLoop has the Manager give up, when so many workers have failed (ended badly by themselves, not become ready, or
// could not be spawned) within Window and none is ready: it delivers itself ShutdownSignal, and WaitAllChildren and Run
// return ErrCrashLoop. 0 Failures means never; a Window of 0 means 1 minute. Where ErrRespawnInterval is 1 s, pacing allows a slot no more
// than six or seven failures in a minute: Failures should be fewer than that times MaxWorkers.
type CrashLoop struct {
	Failures int
	Window   time.Duration
}

// Readiness says when a worker counts as ready: when it reaches Start, or, if Explicit, when it calls Worker.Ready. One
// that is not ready within Timeout is killed, and counts as one that ended badly. A Command is ready at once.
type Readiness struct {
	Explicit bool
	Timeout  time.Duration // 0 means 60s, negative means never
}

const (
	defaultMaxWorkers     = 10
	defaultReadyTimeout   = time.Minute
	defaultErrRespawn     = time.Second
	defaultCrashWindow    = time.Minute
	defaultMaxSurge       = 1
	defaultUpgradeTimeout = time.Minute
	defaultStopTimeout    = 30 * time.Second
	defaultOrphanTimeout  = time.Second
)

// withDefaults checks a Config and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.MaxWorkers < 0 {
		return c, configError("MaxWorkers", "%d is negative; 0 means %d", c.MaxWorkers, defaultMaxWorkers)
	}
	if c.MaxWorkers == 0 {
		c.MaxWorkers = defaultMaxWorkers
	}
	if c.SpawnInterval < 0 {
		return c, configError("SpawnInterval", "%v is negative; 0 means no pause", c.SpawnInterval)
	}
	if c.ErrRespawnInterval == 0 {
		c.ErrRespawnInterval = defaultErrRespawn
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = defaultStopTimeout
	}
	if c.Readiness.Timeout == 0 {
		c.Readiness.Timeout = defaultReadyTimeout
	}
	if err := c.checkLoad(); err != nil {
		return c, err
	}
	if c.MaxSpareWorkers == 0 {
		c.MaxSpareWorkers = math.MaxInt // whatever MaxWorkers comes to be
	}
	if c.CrashLoop.Window == 0 {
		c.CrashLoop.Window = defaultCrashWindow
	}
	if c.Standby < 0 {
		return c, configError("Standby", "%d is negative; 0 means none", c.Standby)
	}
	if c.Standby > 0 && c.Command != nil {
		return c, configError("Standby", "it is for workers of this program, which wait in Start; a Command cannot be parked")
	}
	if c.MaxSurge < 0 {
		return c, configError("MaxSurge", "%d is negative; 0 means %d", c.MaxSurge, defaultMaxSurge)
	}
	if c.MaxSurge == 0 {
		c.MaxSurge = defaultMaxSurge
	}
	if c.UpgradeTimeout == 0 {
		c.UpgradeTimeout = defaultUpgradeTimeout
	}
	if c.OrphanTimeout < 0 {
		return c, configError("OrphanTimeout", "%v is negative; 0 means %v", c.OrphanTimeout, defaultOrphanTimeout)
	}
	if c.OrphanTimeout == 0 {
		c.OrphanTimeout = defaultOrphanTimeout
	}
	if c.ShutdownSignal == nil {
		c.ShutdownSignal = syscall.SIGTERM
	}
	if err := checkTrap("ShutdownSignal", c.ShutdownSignal); err != nil {
		return c, err
	}
	if c.TrapSignals == nil {
		c.TrapSignals = Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}}
	}
	if err := c.TrapSignals.check(); err != nil {
		return c, err
	}
	if f := c.TrapSignals[c.ShutdownSignal]; f.Rolling || f.Upgrade {
		return c, configError("TrapSignals", "%v is ShutdownSignal, and Rolling or Upgrade: a shutdown starts nothing", c.ShutdownSignal)
	}
	if c.Command != nil && (len(c.Command) == 0 || c.Command[0] == "") {
		return c, configError("Command", "it names no program; leave it nil to run this program as the worker")
	}
	if c.SameGroup && c.StopGroup {
		return c, configError("SameGroup", "the group of a worker, which StopGroup has signalled and killed, would be the manager's: choose one of the two")
	}
	if c.ListenFDs && c.Command == nil {
		return c, configError("ListenFDs", "it is for a Command; workers of this program get their sockets from Listen")
	}
	if c.Reaper && !reaper.Supported {
		return c, configError("Reaper", "%s cannot have other processes than the first adopt orphans: start the program below an init", runtime.GOOS)
	}
	if c.ReloadBinary && c.Command != nil {
		return c, configError("ReloadBinary", "it is for workers of this program; a Command is looked up whenever it is spawned")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// checkLoad checks what goes by the workers' load.
func (c Config) checkLoad() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MinSpareWorkers", int64(c.MinSpareWorkers)}, {"MaxSpareWorkers", int64(c.MaxSpareWorkers)},
		{"Recycle.MaxRequests", int64(c.Recycle.MaxRequests)}, {"Recycle.MaxLifetime", int64(c.Recycle.MaxLifetime)},
		{"Recycle.MaxMemory", c.Recycle.MaxMemory}, {"Stuck.Timeout", int64(c.Stuck.Timeout)},
		{"CrashLoop.Failures", int64(c.CrashLoop.Failures)}, {"CrashLoop.Window", int64(c.CrashLoop.Window)},
	} {
		if f.value < 0 {
			return configError(f.name, "%d is negative", f.value)
		}
	}
	watched := c.MinSpareWorkers > 0 || c.Stuck.Timeout > 0 || c.Recycle.MaxRequests > 0
	switch {
	case c.MinSpareWorkers > c.MaxWorkers:
		return configError("MinSpareWorkers", "%d is more than MaxWorkers, %d", c.MinSpareWorkers, c.MaxWorkers)
	case c.MaxSpareWorkers > 0 && c.MaxSpareWorkers < c.MinSpareWorkers:
		return configError("MaxSpareWorkers", "%d is less than MinSpareWorkers, %d", c.MaxSpareWorkers, c.MinSpareWorkers)
	case watched && c.Command != nil:
		return configError("Command", "MinSpareWorkers, Stuck and Recycle.MaxRequests go by what workers of this program publish; a Command publishes nothing")
	}
	return nil
}

// stopSignal is the signal by which a worker is told to stop.
func (c Config) stopSignal() syscall.Signal {
	if sig, ok := c.TrapSignals[c.ShutdownSignal].Signal.(syscall.Signal); ok {
		return sig
	}
	return syscall.SIGTERM
}

// Spawn is a worker that is about to be spawned, and what BeforeSpawn may still change of it. Slot is -1 for a standby.
type Spawn struct {
	Slot, Generation, Ordinal int

	Env   []string             // added to the manager's environment; of two equal names this one is in force
	Files []*os.File           // passed on from descriptor 3 up, as by os/exec; the caller closes its own
	Attr  *syscall.SysProcAttr // merged with the library's own; nil for none
}

// ConfigError is a Config that New does not accept.
type ConfigError struct {
	Field string // the field's name
	Err   error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("prefork: Config.%s: %v", e.Field, e.Err) }
func (e *ConfigError) Unwrap() error { return e.Err }

func configError(field, format string, args ...any) error {
	return &ConfigError{Field: field, Err: fmt.Errorf(format, args...)}
}

// SpawnError is a worker that could not be spawned; Slot is -1 for a standby. It comes in an event and in the log; the Manager tries again.
type SpawnError struct {
	Slot, Generation int
	Err              error
}

func (e *SpawnError) Error() string {
	if e.Slot == noSlot {
		return fmt.Sprintf("prefork: cannot spawn a standby: %v", e.Err)
	}
	return fmt.Sprintf("prefork: cannot spawn a worker for slot %d: %v", e.Slot, e.Err)
}
func (e *SpawnError) Unwrap() error { return e.Err }

// ErrCrashLoop is what WaitAllChildren and Run return when the Manager gave up; see Config.CrashLoop.
var ErrCrashLoop = errors.New("prefork: the workers crash again and again")

// ErrNotInherited is the error of a Listen that asks for a socket which the process should have inherited, and did not.
var ErrNotInherited = errors.New("not among the inherited sockets")

// misuse is a call that can never be right. It panics, since no caller could do anything about an error.
func misuse(format string, args ...any) {
	panic("prefork: " + fmt.Sprintf(format, args...))
}
