package prefork

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/reaper"
)

// Config configures a Manager. The zero value is a pool of 10 workers that
// stops on SIGTERM. New copies it.
type Config struct {
	// Name names the pool, in logs and in Snapshot. Each Manager of a program
	// must have a different name, of at most 1 KiB. Manager.Close frees it.
	Name string

	// MaxWorkers is the target number of workers. 0 means 10.
	// Manager.SetMaxWorkers changes it.
	MaxWorkers int

	// SpawnInterval is the minimum delay between two spawns; 0 means none.
	// Respawns after a crash are delayed by ErrRespawnInterval instead.
	SpawnInterval time.Duration

	// ErrRespawnInterval is the backoff of a slot whose workers crash soon after
	// their start. The slot is spawned again no sooner than this after the last
	// spawn, then after 2, 4, 8 … times this, up to a minute (or up to this, if
	// it is longer), with a jitter of 20 %. A slot whose workers exit with code 0
	// at once is respawned twice without delay, then with the same delays. 0 means
	// 1 s. A negative value turns the backoff off, except for failed spawns, which
	// are never retried in a tight loop.
	ErrRespawnInterval time.Duration

	// Backoff is the delay of a slot after the first, second … young bad end in a
	// row, without jitter; the last one repeats. It counts from the last spawn. A life
	// that is as long as the delay that its end would cost, and at least a second,
	// costs nothing and starts the list again. Two young clean ends in a row cost
	// nothing, the following ones the delays of the list. nil means the delays of
	// ErrRespawnInterval, which remain those of failed spawns; empty means no delay.
	Backoff []time.Duration

	// Restart decides whether a slot gets another worker after one that exited on
	// its own. By default it always does. Otherwise the slot may be done: a DoneEvent
	// reports it, and the slot stays empty until Manager.Release, or until Run or
	// Start is called after a shutdown. When every slot is done, the Manager shuts
	// down and Run returns nil. Workers that were stopped or replaced are respawned
	// in any case.
	Restart Restart

	// SuccessCodes are exit codes that mean success, in addition to 0: for Restart,
	// the backoff, CrashLoop and ReasonFinished. Each is from 1 to 255. In-process
	// mode has no exit codes, and ignores them.
	SuccessCodes []int

	// TrapSignals maps each signal that the Manager receives to the signal that it
	// forwards to the workers. nil means {SIGTERM: {Signal: SIGTERM}}. A given
	// table replaces that default; an empty one traps nothing.
	TrapSignals Signals

	// ShutdownSignal ends Run. It is handled before all other signals that wait.
	// nil means SIGTERM. If the table has it but not SIGINT, an interrupt (Ctrl-C)
	// counts as this signal, unless the program was started with interrupts
	// ignored. A second interrupt kills the remaining workers.
	ShutdownSignal os.Signal

	// StopSignal is the signal that stops a worker: one that is sent it, in whatever
	// way, counts as stopping. nil means the signal that the table forwards for
	// ShutdownSignal, or SIGTERM if there is none. Set it for a Command that
	// finishes its work on another signal. The table may then leave ShutdownSignal
	// out, and must not forward another signal for it.
	StopSignal os.Signal

	// Untrapped makes New and Run trap no signal of this process, not even SIGTERM,
	// interrupts and SIGPIPE. It is for a program that runs pools beside other work
	// and handles signals itself. The table then only has a meaning for
	// Manager.Deliver. The program ends the pool by Manager.Shutdown, or by the
	// context of Run.
	Untrapped bool

	// StopTimeout is the time from the stop signal to SIGKILL. Each worker has its
	// own clock. 0 means 30 s; a negative value means never.
	StopTimeout time.Duration

	// StopGroup sends the stop signal and SIGKILL to the worker's whole process
	// group, so they also reach the processes that the worker has started, unless
	// those have left the group (setsid), and end while requests still wait for
	// them: set it for processes that finish their work at the stop signal, or
	// start those in a session of their own. Other signals go to the worker alone.
	// Each worker leads a group of its own. If BeforeSpawn puts a worker into
	// another group, by Attr, that group is never signalled.
	//
	// Processes that remain in the group after the worker has exited are called
	// leftover processes. They are sent the stop signal unless the worker got it
	// first, and are killed StopTimeout after it. They do not count as workers, and
	// the slot is spawned again, but Run and WaitAllChildren do not return before
	// they have exited or were killed. An exited process counts until its parent
	// has waited for it, which is usually process 1. The kernel does not report
	// the end of a group, so the manager polls, from 100 down to 2 times a second,
	// while there are leftover processes.
	//
	// If the system cannot signal a group without its leader (Linux before 6.9, and
	// all other systems), leftover processes are killed as soon as the worker has
	// exited. On those systems a worker should wait for its own children.
	//
	// Workers then ignore SIGHUP, unless the table sends it: the kernel sends it to
	// a group with a suspended member when the manager dies.
	StopGroup bool

	// SameGroup keeps workers in the process group of the manager; by default each
	// leads a group of its own. In the terminal's foreground group, a worker can
	// read from the terminal, as a debugger does. Signals of the terminal (Ctrl-C,
	// Ctrl-Z), and those sent to the manager's group, reach the workers too.
	SameGroup bool

	// Readiness decides when a worker counts as ready.
	Readiness Readiness

	// MinSpareWorkers enables dynamic sizing: the manager spawns workers until at
	// least this many are idle, up to MaxWorkers. Workers report their state with
	// Worker.SetStatus. 0 disables it.
	MinSpareWorkers int
	// MaxSpareWorkers is the maximum number of idle workers; 0 means no maximum.
	// The manager stops surplus workers, the youngest idle one first and one each
	// SpawnInterval. It never stops a busy worker; a worker that becomes busy at
	// that moment finishes its request, like every worker that is stopped.
	MaxSpareWorkers int

	// Standby is the number of workers that are started in advance and wait in
	// Start. When a worker exits, or more workers are needed, a standby takes the
	// slot at once, and another standby is started. The backoff of a crashing slot
	// (ErrRespawnInterval) then delays that other standby. Standbys belong to
	// their generation: when Start returns they are stopped, and the next
	// generation starts its own. They count neither as workers nor as spare
	// workers; hooks and events report them with Slot -1. A standby gets its Slot,
	// its socket (ListenPerWorker) and its CPUs before Start returns in it. With
	// Readiness.Explicit, slow initialization should therefore be done before
	// Start. Signals to forward are held until then. 0 means none. Standbys cannot
	// be used with Command, nor with Resources.Chroot and CPUsPerWorker together.
	Standby int

	// Recycle decides when a worker is replaced by a fresh one.
	Recycle Recycle
	// Stuck decides when a worker counts as stuck.
	Stuck Stuck
	// CrashLoop decides when the Manager shuts down because workers keep failing.
	CrashLoop CrashLoop

	// WorkerShutdown lets a worker shut the whole pool down; see
	// Worker.ShutdownPool. By default the manager ignores such a request: a worker
	// that an attacker controls could send it too. A Command cannot send it;
	// OnChildReap can call Manager.ShutdownWith for its exit code.
	WorkerShutdown bool

	// Resources limits a worker: CPU, memory, user and more. A Command with CPUs,
	// CPUsPerWorker, Nice, Umask, Rlimits or NoNewPrivs is started through a second
	// start of this program, as with ListenFDs.
	Resources Resources

	// MaxSurge is how many workers may start or run beyond MaxWorkers while a
	// signal with Forward.Rolling replaces them. 0 means 1.
	MaxSurge int

	// ReloadBinary makes each generation but the first run the program file that is
	// on disk when the signal arrives that replaces the workers. A deploy then needs
	// no new manager. By default workers run the file that the manager runs, on
	// Linux even if another file has taken its name. The file is checked before any
	// worker is stopped: if it is missing, cut short or not executable, a
	// ReloadFailedEvent reports the reason and the workers keep running. The file
	// stays open, so respawned workers run the file of their generation. To
	// replace the manager too, use Manager.Upgrade.
	ReloadBinary bool

	// UpgradeTimeout is how long a successor may take until all its workers are
	// ready; see Manager.Upgrade. 0 means 60 s; a negative value means for ever.
	UpgradeTimeout time.Duration

	// OrphanTimeout is how long a worker may live after its manager has died: its
	// Context ends at once, and the process is ended after this time. 0 means 1 s.
	// A worker that never called Context is ended at once. With StopGroup the worker
	// also ends its process group: it sends the stop signal, and SIGKILL after this
	// time, for which it stays even if its own work has ended (but not longer than
	// StopTimeout). The kernel kills a Command, on Linux and FreeBSD (not setuid
	// programs), but not its group.
	OrphanTimeout time.Duration

	// Reaper runs the program below a reaper: a process that waits for orphaned
	// descendants, forwards signals to the manager, and exits with the manager's
	// status, after an upgrade with the last manager's. The reaper runs nothing of
	// the program, keeps the pid with which the program was started, and stays
	// through upgrades.
	//
	// As process 1, in a container, the program always gets a reaper, since process
	// 1 must wait for orphans. In both cases New makes it by executing the program
	// again: the code before New runs once more, with the directory and the
	// environment of that moment. A second New finds the reaper in place. Linux
	// only.
	Reaper bool

	// ReaperKills makes Reaper, which it implies, kill all descendants of the program
	// when that ends, and at once if SIGKILL ends the manager or the reaper: also
	// those that have left their process group or session, or have daemonized. The
	// workers then have no OrphanTimeout. A second process, the guard, has the pid
	// with which the program was started; the reaper is its child. Whichever of the
	// two survives the other kills the rest.
	//
	// The guard and the reaper hold the files and directories open with which the
	// program was started. With a lock by flock on one of them, a second copy of the
	// program cannot start before all processes of the first are gone: open it before
	// New, without close-on-exec. The first Manager of the program must set the
	// field; a successor keeps the reaper of its predecessor. Linux only.
	ReaperKills bool

	// InProcess runs the worker's function in this process, as the only worker, for
	// a debugger, a profiler or a test of the program's main. The variable
	// PREFORK_IN_PROCESS=1 in the environment does the same for a program as it is.
	// Signals, Reload, Pass, Pause, the sockets and the Worker's Context work as
	// ever. When the function returns it is called again, in the same process: after
	// a signal that replaces the workers, and after ErrRespawnInterval if it fails.
	// Each call finds the sockets open again, but global variables as the last one
	// left them. With Start, the code that follows is the worker, and the first
	// signal that stops or replaces it is the last.
	//
	// IsWorker returns false. A panic ends the program, as does a second interrupt.
	// There are no hooks, no timeouts, no Resources, no sizing, no recycling and no
	// upgrade. Manager.Follow gets the events, Observe does not. A signal that the
	// worker should get is sent to this
	// process, unless the table has it too. It must not be used in production.
	InProcess bool

	// Reload is called by Run in the manager before the first generation, and when
	// a signal arrives that replaces the workers. Worker.Passed returns its bytes
	// in the generation that follows. Run returns an error of the first call. A
	// later error is logged, no worker is signalled, and the workers keep running.
	// nil passes nothing.
	Reload func() ([]byte, error)

	// Command is a program, with its arguments, to run as the worker instead of
	// this program. It can be written in any language and need not know this
	// library. It is looked up in PATH at each spawn, below Resources.Chroot if that
	// is set. It must stay in the foreground. The functions passed to Run and
	// StartFunc may then be nil and are not called. A Command inherits the Manager's
	// sockets. SERVER_STARTER_PORT and SERVER_STARTER_GENERATION describe
	// them, so programs written for Server::Starter run unchanged.
	Command []string
	// Dir is the working directory of a Command, in which a Command[0] with a slash is
	// looked up too. With Resources.Chroot it is below that. "" means the manager's, or
	// the root directory.
	Dir string
	// ListenStarter sets SERVER_STARTER_PORT for a Command also if there are no
	// sockets.
	ListenStarter bool
	// ListenFDs also sets LISTEN_FDS and LISTEN_PID for a Command, as systemd does.
	// The Command is then started through a second start of this program, which
	// takes some milliseconds, because LISTEN_PID must be its own pid. A stop signal
	// in that time ends that program. LISTEN_FDS includes Spawn.Files, which come
	// first. That program changes its root and its user itself, before it becomes the
	// Command, so Spawn.Attr must not have a Chroot.
	ListenFDs bool

	// BeforeSpawn is called before every attempt to spawn a worker. It and the
	// three functions below are hooks: they run in the manager, in the goroutine of
	// the blocking call, one at a time, so variables that they write may be read
	// after that call has returned. Hooks may call every method of the Manager that
	// does not block. While a hook runs, nothing else happens in the pool. A panic
	// in a hook ends the manager; a program that recovers it may lose track of
	// workers.
	BeforeSpawn func(*Manager, *Spawn)
	// AfterSpawn is called after every successful spawn, with the worker's pid.
	AfterSpawn func(*Manager, int)
	// OnChildReap is called after every worker that was reaped.
	OnChildReap func(*Manager, Exit)
	// Observe is called with every event, once and in order.
	Observe func(Event)

	// Logger gets one line for every event. nil means slog.Default().
	Logger *slog.Logger
}

// Restart is a policy for workers that have exited on their own.
type Restart uint8

const (
	// RestartAlways respawns the worker.
	RestartAlways = Restart(pool.RestartAlways)
	// RestartOnFailure does so unless the worker exited with code 0 or one of
	// Config.SuccessCodes.
	RestartOnFailure = Restart(pool.RestartOnFailure)
	// RestartNever does not.
	RestartNever = Restart(pool.RestartNever)
)

func (r Restart) String() string { return name(int(r), "always", "on failure", "never") }

// isSuccess reports whether a worker that exited with this status has succeeded.
func (c Config) isSuccess(s proc.Status) bool {
	return s.Clean() || s == proc.Status{Code: s.Code} && slices.Contains(c.SuccessCodes, s.Code)
}

// Resources limits a worker and gives it its share of the machine. A zero field
// changes nothing. New checks in the manager as much as can be checked there. A
// worker applies its resources in its own New, so New should be the first call
// of main. It verifies them for all its threads. If one of them is not in effect
// the worker logs the reason and exits: it never works with more rights than it
// should have.
type Resources struct {
	// GOMAXPROCS is the number of threads of a worker that run Go code at a time.
	// 0 means the CPUs that the workers may use divided by MaxWorkers at the time
	// of the spawn, rounded up, and at most CPUsPerWorker; the variable GOMAXPROCS
	// in the environment of the manager, or in Spawn.Env, takes precedence. -1
	// leaves it alone: the runtime of each worker counts all CPUs. At most 8192. It
	// is set in the worker's environment, which the worker's own children inherit. A
	// Command gets a positive value only.
	GOMAXPROCS int

	// GOMEMLIMIT is the number of bytes below which the Go runtime of a worker
	// tries to stay; 0 means no limit. It only affects how often the garbage
	// collector runs. It is set in the worker's environment.
	GOMEMLIMIT int64

	// CPUs are the numbers of the CPUs on which workers run, in the order in which
	// they are assigned. nil means all those of the manager.
	CPUs []int

	// CPUsPerWorker spreads the workers over the CPUs: slot 0 gets the first
	// CPUsPerWorker of them, slot 1 the next, and so on, starting over at the end.
	// 0 lets every worker run on all CPUs.
	CPUsPerWorker int

	// Nice is the nice value of a worker, from -20 (first) to 19 (last). 0 keeps
	// that of the manager. A lower value than the manager's needs root.
	Nice int

	// Umask is the file mode creation mask of a worker: an octal number, such as
	// "027". "" keeps that of the manager.
	Umask string

	// Rlimits are limits of the worker, each resource at most once. Others stay as
	// in the manager. A higher hard limit than the manager's needs root.
	Rlimits []Rlimit

	// Cgroup is the directory of a version 2 cgroup in which workers are started,
	// such as /sys/fs/cgroup/site/workers. It must exist and be able to hold
	// processes. If it is removed and made again, workers start in the new one.
	// Linux 5.7 or later.
	Cgroup string

	// User is the user of a worker: a name in /etc/passwd, or a number. It needs a
	// manager that runs as root. Other sources of names (LDAP, by NSS) are not
	// consulted. The worker keeps no capability, is not dumpable (no core, no
	// debugger but root's), and has the manager's HOME and USER.
	User string

	// Group is the group of a worker: a name in /etc/group, or a number. "" means
	// the group that /etc/passwd has for User. It requires User.
	Group string

	// Groups are the supplementary groups of a worker. nil means those that
	// /etc/group has for User; empty means none. They require User.
	Groups []string

	// Chroot is the root directory of a worker, an absolute path. It is also the
	// worker's working directory. Sockets, standard streams and Spawn.Files stay
	// open. Files that the program reads later (time zones, certificates,
	// resolv.conf, /dev/null for os/exec) must exist in there. It needs root.
	Chroot string

	// NoNewPrivs keeps a worker and its children from gaining privileges by
	// executing a file (setuid, file capabilities). Linux only. A program that
	// links cgo needs seccomp for it.
	NoNewPrivs bool
}

// Rlimit is a resource limit of a process. Resource is one of the constants
// RlimitAS to RlimitStack:
//
//	as       bytes of address space (not on OpenBSD; Go reserves more than it uses)
//	core     bytes of a core file
//	cpu      seconds of CPU time
//	data     bytes of data
//	fsize    bytes of a file that is written
//	memlock  bytes of locked memory
//	nofile   highest descriptor plus one; Go raises the soft limit to the hard one
//	nproc    threads of the worker's user, on Linux in all its processes; not for root
//	stack    bytes of the first thread's stack
type Rlimit struct {
	Resource string
	Soft     uint64 // the limit in effect
	Hard     uint64 // up to this the worker may raise Soft; 0 means the same as Soft
}

// The names of the resources of a Rlimit.
const (
	RlimitAS      = "as"
	RlimitCore    = "core"
	RlimitCPU     = "cpu"
	RlimitData    = "data"
	RlimitFsize   = "fsize"
	RlimitMemlock = "memlock"
	RlimitNofile  = "nofile"
	RlimitNproc   = "nproc"
	RlimitStack   = "stack"
)

// Unlimited means no limit, as Soft or Hard of a Rlimit.
const Unlimited = math.MaxUint64

const (
	defaultMaxWorkers       = 10
	defaultReadyTimeout     = time.Minute
	defaultErrRespawn       = time.Second
	defaultCrashWindow      = time.Minute
	defaultUnprovenFailures = 3
	defaultMaxSurge         = 1
	defaultUpgradeTimeout   = time.Minute
	defaultStopTimeout      = 30 * time.Second
	defaultOrphanTimeout    = time.Second
)

// Config returns a copy of the Config that New was given, with defaults in place
// of zero values. Changing it has no effect. MaxWorkers is the number at the
// start; see Manager.MaxWorkers for the present one.
func (m *Manager) Config() Config {
	c := m.cfg
	if c.MaxSpareWorkers == math.MaxInt {
		c.MaxSpareWorkers = 0 // no maximum
	}
	c.TrapSignals, c.Command = maps.Clone(c.TrapSignals), slices.Clone(c.Command)
	c.Backoff, c.SuccessCodes = slices.Clone(c.Backoff), slices.Clone(c.SuccessCodes)
	r := &c.Resources
	r.CPUs, r.Rlimits, r.Groups = slices.Clone(r.CPUs), slices.Clone(r.Rlimits), slices.Clone(r.Groups)
	return c
}

// withDefaults checks a Config and replaces zero values by defaults.
func (c Config) withDefaults() (Config, error) {
	if err := c.checkNumbers(); err != nil {
		return c, err
	}
	defaultTo(&c.MaxWorkers, defaultMaxWorkers)
	defaultTo(&c.MaxSurge, defaultMaxSurge)
	defaultTo(&c.ErrRespawnInterval, defaultErrRespawn)
	defaultTo(&c.StopTimeout, defaultStopTimeout)
	defaultTo(&c.Readiness.Timeout, defaultReadyTimeout)
	defaultTo(&c.CrashLoop.Window, defaultCrashWindow)
	defaultTo(&c.UpgradeTimeout, defaultUpgradeTimeout)
	defaultTo(&c.OrphanTimeout, defaultOrphanTimeout)
	if c.ShutdownSignal == nil {
		c.ShutdownSignal = syscall.SIGTERM
	}
	if c.TrapSignals == nil {
		c.TrapSignals = Signals{syscall.SIGTERM: {Signal: c.stopSignal()}}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.TrapSignals, c.Command = maps.Clone(c.TrapSignals), slices.Clone(c.Command)
	c.Backoff, c.SuccessCodes = slices.Clone(c.Backoff), slices.Clone(c.SuccessCodes)
	if err := c.Readiness.check(c.Command != nil); err != nil {
		return c, err
	}
	for _, check := range []func(Config) error{Config.checkLoad, Config.checkSignals, Config.checkProcess} {
		if err := check(c); err != nil {
			return c, err
		}
	}
	defaultTo(&c.MaxSpareWorkers, math.MaxInt) // also after SetMaxWorkers
	return c, nil
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// checkNumbers checks the fields that must not be negative.
func (c Config) checkNumbers() error {
	for _, f := range []struct {
		name     string
		negative bool
		value    any
		zero     any
	}{
		{"MaxWorkers", c.MaxWorkers < 0, c.MaxWorkers, defaultMaxWorkers},
		{"SpawnInterval", c.SpawnInterval < 0, c.SpawnInterval, "no delay"},
		{"Standby", c.Standby < 0, c.Standby, "none"},
		{"MaxSurge", c.MaxSurge < 0, c.MaxSurge, defaultMaxSurge},
		{"OrphanTimeout", c.OrphanTimeout < 0, c.OrphanTimeout, defaultOrphanTimeout},
		{"MinSpareWorkers", c.MinSpareWorkers < 0, c.MinSpareWorkers, "no sizing by load"},
		{"MaxSpareWorkers", c.MaxSpareWorkers < 0, c.MaxSpareWorkers, "no maximum"},
		{"Recycle.MaxRequests", c.Recycle.MaxRequests < 0, c.Recycle.MaxRequests, "never"},
		{"Recycle.MaxLifetime", c.Recycle.MaxLifetime < 0, c.Recycle.MaxLifetime, "never"},
		{"Recycle.MaxMemory", c.Recycle.MaxMemory < 0, c.Recycle.MaxMemory, "never"},
		{"Stuck.Timeout", c.Stuck.Timeout < 0, c.Stuck.Timeout, "never"},
		{"CrashLoop.Window", c.CrashLoop.Window < 0, c.CrashLoop.Window, defaultCrashWindow},
	} {
		if f.negative {
			return configError(f.name, "%v is negative; 0 means %v", f.value, f.zero)
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"Readiness.Timeout", c.Readiness.Timeout}, {"Readiness.After", c.Readiness.After}, {"Stuck.Timeout", c.Stuck.Timeout}, {"UpgradeTimeout", c.UpgradeTimeout},
	} {
		if f.value > 0 && f.value < time.Millisecond {
			return configError(f.name, "%v is too short for any process; a number without a unit means nanoseconds, so multiply it by time.Second", f.value)
		}
	}
	for _, d := range c.Backoff {
		if d < 0 {
			return configError("Backoff", "the delay %v is negative; 0 means none", d)
		}
	}
	for _, code := range c.SuccessCodes {
		if code < 1 || code > 255 {
			return configError("SuccessCodes", "%d is not an exit code of a process from 1 to 255; 0 is always a success", code)
		}
	}
	if c.Restart > RestartNever {
		return configError("Restart", "there is no policy %d", c.Restart)
	}
	if n := len(c.Name); n > maxName {
		return configError("Name", "it has %d bytes, and may have %d: it is in each line of the log", n, maxName)
	}
	return nil
}

// maxName bounds Config.Name, which is in the marker of each worker.
const maxName = 1 << 10

// checkLoad checks the fields that depend on the status of workers.
func (c Config) checkLoad() error {
	published := c.MinSpareWorkers > 0 || c.Stuck.Timeout > 0 || c.Recycle.MaxRequests > 0
	switch {
	case c.MinSpareWorkers > c.MaxWorkers:
		return configError("MinSpareWorkers", "%d is more than MaxWorkers, %d", c.MinSpareWorkers, c.MaxWorkers)
	case c.MaxSpareWorkers > 0 && c.MaxSpareWorkers < c.MinSpareWorkers:
		return configError("MaxSpareWorkers", "%d is less than MinSpareWorkers, %d", c.MaxSpareWorkers, c.MinSpareWorkers)
	case published && c.Command != nil:
		return configError("Command", "it cannot be combined with MinSpareWorkers, Stuck and Recycle.MaxRequests: a Command does not publish its status")
	}
	return nil
}

// checkProcess checks how worker processes are made.
func (c Config) checkProcess() error {
	if err := launch.CheckArgs(c.Command); err != nil {
		return &ConfigError{Field: "Command", Err: err}
	}
	switch {
	case c.Standby > 0 && c.Command != nil:
		return configError("Standby", "it cannot be combined with Command: only workers of this program can wait in Start")
	case c.SameGroup && c.StopGroup:
		return configError("SameGroup", "it cannot be combined with StopGroup, which would stop and kill the manager's own process group")
	case c.Dir != "" && c.Command == nil:
		return configError("Dir", "it is for a Command; a worker of this program changes its directory itself")
	case c.ListenStarter && c.Command == nil:
		return configError("ListenStarter", "it is for a Command; workers of this program get their sockets from Listen")
	case strings.IndexByte(c.Dir, 0) >= 0:
		return configError("Dir", "%q has a zero byte, which no path can have", c.Dir)
	case c.ListenFDs && c.Command == nil:
		return configError("ListenFDs", "it is for a Command; workers of this program get their sockets from Listen")
	case c.ReaperKills && !reaper.Supported:
		return configError("ReaperKills", "%s has no processes that adopt orphans: %w", runtime.GOOS, errors.ErrUnsupported)
	case c.Reaper && !reaper.Supported:
		return configError("Reaper", "on %s only process 1 can adopt orphans: run the program below an init", runtime.GOOS)
	case c.ReloadBinary && c.Command != nil:
		return configError("ReloadBinary", "it is for workers of this program; a Command is looked up at each spawn anyway")
	}
	return nil
}

// ConfigError reports a Config that New does not accept.
type ConfigError struct {
	Field string // the field's name
	Err   error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("prefork: Config.%s: %v", e.Field, e.Err) }
func (e *ConfigError) Unwrap() error { return e.Err }

func configError(field, format string, args ...any) error {
	return &ConfigError{Field: field, Err: fmt.Errorf(format, args...)}
}
