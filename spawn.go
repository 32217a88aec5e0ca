package prefork

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/board"
	"github.com/prefork-go/prefork/internal/control"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/wire"
)

// Spawn describes a worker that is about to be spawned. BeforeSpawn may change
// all but its numbers. Slot is -1 for a standby.
type Spawn struct {
	Slot, Generation, Ordinal int

	Env   []string             // added to the manager's environment; overrides equal names
	Unset []string             // names of variables of the manager that the worker does not get
	Files []*os.File           // passed from descriptor 3 up, as by os/exec; not closed
	Attr  *syscall.SysProcAttr // merged with the library's own; nil for none

	Stdin, Stdout, Stderr *os.File // nil for those of the manager; not closed

	// The following are for a Command. All files that it gets are put into blocking
	// mode, in all processes that share them.

	Command []string // in place of Config.Command, with its arguments; nil for that
	Path    string   // the file to execute, if it is another than Command[0]
	Dir     string   // the working directory; "" for Config.Dir
	// FilesAt are passed at exactly these numbers, from 3 up; not closed. Sockets of
	// Listen move to other numbers. A number that Files, Readiness.FD or, with
	// ListenFDs, a socket has is an error of the spawn.
	FilesAt map[int]*os.File
}

// checkCommand checks the fields that only a Command can have.
func (sp *Spawn) checkCommand(command bool) error {
	if !command && (sp.Command != nil || sp.Path != "" || sp.Dir != "" || sp.FilesAt != nil) {
		return errors.New("the fields Command, Path, Dir and FilesAt of a Spawn are for a Command: set Config.Command")
	}
	return launch.CheckArgs(sp.Command)
}

// SpawnError reports a worker that could not be spawned. Slot is -1 for a
// standby. Events and the log have it; the Manager tries again.
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

// spawner is the part of the loop that starts workers.
type spawner struct {
	exe       string // starts the program of this process again
	onDisk    string // the path of its file, or of the one that has taken its name
	running   string // the path of the file of this process, or the name of the Command
	dir       string // the directory in which the program was started, by its name
	dirFailed bool   // workers cannot be started there, and the log has it
	depth     int    // managers above this one
	resources *resources.Settings

	generations launch.Generations
	notSpawned  *SpawnError // the last failed spawn
}

func newSpawner(exe string, depth int, settings *resources.Settings, command []string) spawner {
	s := spawner{exe: exe, depth: depth, resources: settings}
	s.dir = binary.DirByName(process.Args[0], process.Dir)
	s.onDisk, _ = binary.OnDisk(process.Args[0], s.dir)
	s.running, _ = os.Executable()
	if command != nil {
		s.running = command[0]
	}
	if process.Role == marker.Successor {
		s.onDisk = process.Marker.Path // a symbolic link may have changed since
	}
	return s
}

// presentDir returns the working directory, or "".
func presentDir() string {
	dir, _ := os.Getwd()
	return dir
}

// program returns the path of the file that a generation runs, or the name of the
// Command.
func (l *loop) program(gen int) string {
	if l.cfg.Command != nil {
		return l.cfg.Command[0]
	}
	if exe := l.generations.Get(gen).Exe; exe != nil {
		return exe.File()
	}
	return l.running
}

// startDir returns the directory in which a worker must be started, so that
// main's code before Start finds what the manager's found; "" for the manager's
// present one. It has a name that a deployment may give to another directory.
func (l *loop) startDir(attr *syscall.SysProcAttr) string {
	there, err := os.Stat(l.dir)
	if err != nil {
		l.warnOfDir(err)
		return ""
	}
	here, err := os.Stat(".")
	if err == nil && os.SameFile(here, there) || launch.Chroot(attr) != "" {
		return ""
	}
	return l.dir
}

// warnOfDir logs once that workers do not start in the start directory.
func (l *loop) warnOfDir(err error) {
	if !l.dirFailed {
		l.dirFailed = true
		l.deferred.Warn("cannot start workers in the start directory, using the present one", "dir", l.dir, "err", err)
	}
}

// forget closes what only generations need that are no longer spawned.
func (l *loop) forget() { l.generations.Forget(l.generation, l.pool.Fallback()) }

// spawn tries to start the worker that the policy asks for.
func (l *loop) spawn(step pool.Step) {
	sp := &Spawn{Slot: step.Slot, Generation: step.Gen, Ordinal: step.Ordinal}
	if l.cfg.BeforeSpawn != nil {
		l.callHook("BeforeSpawn", func() { l.cfg.BeforeSpawn(l.Manager, sp) })
		sp.Slot, sp.Generation, sp.Ordinal = step.Slot, step.Gen, step.Ordinal
		if l.slotClosed(step.Slot) {
			return
		}
	}
	p, err := l.startWorker(sp)
	if err != nil {
		err, shortage := proc.Shortage(err)
		l.notSpawned, l.lastFailure = &SpawnError{Slot: sp.Slot, Generation: sp.Generation, Err: err}, err
		busy := errors.Is(err, syscall.ETXTBSY)
		if !busy { // it is tried again, and UpgradeTimeout bounds that
			l.reportFailed(err.Error())
		}
		l.mu.Lock()
		l.changes.WorkerLost(sp.Generation)
		l.mu.Unlock()
		l.handle(pool.Event{Kind: pool.SpawnFailed, Shortage: shortage, Busy: busy})
		return
	}
	now := time.Now()
	w := &worker{
		WorkerInfo: WorkerInfo{Slot: sp.Slot, Generation: sp.Generation, Ordinal: sp.Ordinal, PID: p.Pid(), Started: now, Since: now},
		proc:       p.Process, spawnedAt: l.now(), exe: l.generations.Get(sp.Generation).Exe, notStarted: p.notStarted,
		record: board.Worker{ID: sp.Ordinal, PID: p.Pid(), Cell: p.cell, MaxMemory: jittered(l.cfg.Recycle.MaxMemory)},
	}
	switch {
	case l.cfg.Command == nil:
		w.level = l.sentLevel
		w.messages = control.NewReader(p)
	case l.cfg.Readiness.FD != 0:
		w.messages = control.NewLineReader(p)
	case w.notStarted != nil:
		w.messages = control.NewReader(p)
	}
	l.mu.Lock()
	l.workers[w.Ordinal] = w
	if w.Slot == noSlot {
		l.standbys++
	} else {
		l.takePlace(w)
	}
	l.mu.Unlock()
	command, stepped := l.cfg.Command != nil, w.notStarted != nil
	l.handle(pool.Event{Kind: pool.Spawned, Command: command, Step: stepped, Ready: command && !stepped && l.cfg.Readiness.atOnce()})
	if l.cfg.AfterSpawn != nil {
		l.callHook("AfterSpawn", func() { l.cfg.AfterSpawn(l.Manager, w.PID) })
	}
}

// started is the process of a worker that was just started.
type started struct {
	proc.Process
	cell       *scoreboard.Cell                  // nil for a Command
	notStarted func(syscall.Errno, string) error // see worker
}

// startWorker starts the process of a worker.
func (l *loop) startWorker(sp *Spawn) (p started, err error) {
	if err := sp.checkCommand(l.cfg.Command != nil); err != nil {
		return p, err
	}
	step := l.cfg.ListenFDs || l.resources.NeedsStep()
	attr, err := l.resources.Attr(sp.Attr, l.cfg.Command != nil && !step)
	if err != nil {
		return p, err
	}
	plan := launch.Plan{
		Exe: l.exe, Args: process.Args, Env: append(l.resources.Env(l.pool.Max()), sp.Env...), Unset: sp.Unset, Files: sp.Files, Started: process.Started(),
		Streams: [3]*os.File{sp.Stdin, sp.Stdout, sp.Stderr},
		Attr:    attr, Depth: l.depth + 1,
		Group: l.cfg.StopGroup, SameGroup: l.cfg.SameGroup,
	}
	if l.cfg.Command != nil {
		plan.Step = step
		return l.startCommand(sp, plan)
	}
	g := l.generations.Get(sp.Generation)
	plan.Binary, plan.Dir = g.Exe, l.startDir(sp.Attr)
	if plan.Blob, err = g.Passed.FD(); err != nil {
		return p, err
	}
	if err := l.sockets.Grow(sp.Slot); err != nil {
		return p, err
	}
	plan.Sockets = l.sockets.Hand(sp.Slot)
	if p.cell, plan.Cell, err = launch.NewCell(); err != nil {
		return p, err
	}
	defer fd.Close(plan.Cell)
	plan.Marker = l.marker()
	plan.Marker.Slot, plan.Marker.Generation, plan.Marker.Ordinal = sp.Slot, sp.Generation, sp.Ordinal
	plan.Marker.Resources = l.resources.Plan(sp.Slot)
	plan.Marker.Ignore = marker.SignalList(l.ignored())
	plan.Marker.Requests = int(jittered(int64(l.cfg.Recycle.MaxRequests)))
	if p.Process, err = l.launch(plan, g.Exe); err != nil {
		p.cell.Close()
	}
	return p, err
}

// launch starts the process of a worker that runs this program.
func (l *loop) launch(plan launch.Plan, exe *binary.Binary) (proc.Process, error) {
	spec, release, err := launch.Worker(plan)
	if err != nil {
		return nil, err
	}
	defer release()
	p, err := l.procs.Start(uint64(plan.Marker.Ordinal), spec)
	if spec.Dir != "" && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOENT)) {
		// Another user may not enter it (Spawn.Attr), or it has just been removed.
		l.warnOfDir(err)
		plan.Dir = ""
		return l.launch(plan, exe)
	}
	return p, launch.Explain(err, exe)
}

func (l *loop) startCommand(sp *Spawn, plan launch.Plan) (p started, err error) {
	plan.Args, plan.Program, plan.Dir = l.cfg.Command, sp.Path, cmp.Or(sp.Dir, l.cfg.Dir)
	if sp.Command != nil {
		plan.Args = sp.Command
	}
	plan.Generation, plan.ListenFDs, plan.ListenStarter = sp.Generation, l.cfg.ListenFDs, l.cfg.ListenStarter
	for _, port := range l.sockets.HandCommand() {
		plan.Ports = append(plan.Ports, launch.Port(port))
	}
	plan.ReadyFD, plan.FilesAt = l.cfg.Readiness.FD, sp.FilesAt
	plan.Root = cmp.Or(launch.Chroot(plan.Attr), l.cfg.Resources.Chroot)
	if plan.Step {
		plan.Confine = l.resources.Plan(sp.Slot)
		p.notStarted = plan.NotStarted
	}
	spec, release, err := launch.Command(plan)
	if err != nil {
		return p, err
	}
	defer release()
	p.Process, err = l.procs.Start(uint64(sp.Ordinal), spec)
	return p, launch.ExplainCommand(plan.Root, spec.Dir, err)
}

// marker returns the part that all markers of this Manager have in common.
func (l *loop) marker() marker.Marker {
	return marker.Marker{
		Manager: os.Getpid(), Name: l.cfg.Name, Generation: 1, Ordinal: 1, Stop: l.stop, Orphan: l.cfg.OrphanTimeout, StopTime: l.cfg.StopTimeout, Group: l.cfg.StopGroup,
		Pause: l.pausing, Level: int(l.sentLevel),
	}
}

// jittered reduces n by a random amount of up to 20 %, so that workers that
// started together are not recycled together.
func jittered(n int64) int64 { return n - int64(rand.Float64()*float64(n/5)) }

// accept decides whether a signal ends the running generation, and whether it is
// forwarded.
func (l *loop) accept(a sigqueue.Arrival, f Forward) (ends, sends bool) {
	switch {
	case a.Sig == l.cfg.ShutdownSignal:
		return true, true
	case f.Upgrade:
		l.emit(SignalEvent{Received: a.Sig, Origin: a.Origin})
		started, _ := l.upgradeNow(context.Background()) // its events report the outcome
		return !l.inRun && (started || a.Request == 0), false
	case !l.replaces(f):
		if l.inRun {
			l.forward(a, f, false)
		}
		return !l.inRun, true
	}
	l.beginReload(a, f)
	if err := l.prepareGeneration(); err != nil {
		l.reloadFailed(err)
		l.checkSettled()
		return !l.inRun, false
	}
	if !l.cfg.ReloadBinary && l.cfg.Command == nil && binary.Replaced(l.exe, l.onDisk) {
		l.deferred.Warn("program on disk is another, workers run the old one: set Config.ReloadBinary, or upgrade", "disk", l.onDisk)
	}
	return true, true
}

// prepareGeneration opens the file of the next generation and, in Run, calls
// Reload, before any worker is stopped.
func (l *loop) prepareGeneration() (err error) {
	var exe *binary.Binary // nil for the file that this process runs
	if l.cfg.ReloadBinary {
		exe, err = l.generations.OpenNext(l.onDisk)
	}
	if err == nil && l.inRun {
		err = l.reload()
	}
	if err != nil {
		l.generations.Drop(exe)
		return err
	}
	l.generations.SetNext(exe)
	return nil
}

// reload calls Reload. Its panic is its failure, and must not end the service.
func (l *loop) reload() (err error) {
	if l.cfg.Reload == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			l.log.Error("panic in Reload", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	var data []byte
	l.callHook("Reload", func() { data, err = l.cfg.Reload() })
	if err == nil {
		l.pass(data)
	}
	return err
}

// callHook calls a hook, which sees the log up to its call.
func (l *loop) callHook(name string, hook func()) {
	l.relay.Flush()
	l.runHook(name, hook)
}

// runHook is callHook without a flush of the log, for functions that are quick.
func (l *loop) runHook(name string, hook func()) {
	l.noticeFreeze() // the end of the hook would hide it
	defer func() { l.seen = l.now() }()
	l.hooks.Run(name, hook)
}

// check checks the resources in the manager.
func (r Resources) check(command, standbys bool) (*resources.Settings, error) {
	c := resources.Config{
		GOMAXPROCS: r.GOMAXPROCS, GOMEMLIMIT: r.GOMEMLIMIT, CPUs: r.CPUs, CPUsPerWorker: r.CPUsPerWorker, Nice: r.Nice, Umask: r.Umask,
		Cgroup: r.Cgroup, User: r.User, Group: r.Group, Groups: r.Groups, Chroot: r.Chroot, NoNewPrivs: r.NoNewPrivs,
	}
	for _, l := range r.Rlimits {
		c.Rlimits = append(c.Rlimits, resources.Rlimit(l))
	}
	s, err := resources.Check(c, command)
	if err == nil && standbys {
		err = s.CheckStandby(wire.MaxPlan)
	}
	var bad *resources.FieldError
	if errors.As(err, &bad) {
		return nil, &ConfigError{Field: "Resources." + bad.Field, Err: bad.Err}
	}
	return s, err
}

// takePlace notes that a worker has got its slot: a standby may be older than the
// worker before it. The caller holds mu.
func (l *loop) takePlace(w *worker) {
	l.places++
	w.place = l.places
}

// checkReplaced answers those who wait for a replacement that is ready now.
func (l *loop) checkReplaced() {
	if len(l.replacing) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replacing = slices.DeleteFunc(l.replacing, func(r replacement) bool {
		if old := l.workers[r.ordinal]; old != nil && old.State < StateStopping {
			return false
		}
		for _, w := range l.workers {
			if w.Slot == r.slot && w.place > r.place && w.State == StateReady {
				l.changes.Answer(r.ticket, w.Ordinal, nil)
				return true
			}
		}
		if l.pool.Needs(r.slot) {
			return false
		}
		l.changes.Answer(r.ticket, 0, fmt.Errorf("slot %d needs no worker any more", r.slot))
		return true
	})
}

// replacementFailed answers those who wait for a worker of a slot in which a worker
// could not be spawned or has ended before it was ready. place is 0 for a spawn.
func (l *loop) replacementFailed(slot, place int, err error) {
	l.replacing = slices.DeleteFunc(l.replacing, func(r replacement) bool {
		failed := r.slot == slot && (place == 0 || place > r.place)
		if failed {
			l.mu.Lock()
			l.changes.Answer(r.ticket, 0, err)
			l.mu.Unlock()
		}
		return failed
	})
}
