// Package prefork keeps a pool of worker processes. A [Manager] starts its own
// program again as MaxWorkers workers, keeps them alive, and maps each signal
// that it receives to one for the workers by a table, so that reload and
// shutdown are a few plain lines in the program's own main loop. Listening
// sockets are bound once and inherited. It is a port of Perl's Parallel::Prefork.
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
// [Manager.Run] is the same loop in one call, and [Manager.Start] its parts.
//
// # What runs twice
//
// A worker is not a fork of the manager but a new process of the same program.
// The code of main before Start, StartFunc or Run therefore runs once in the
// manager and once in each worker. The library's own calls do the right thing in
// both: New adopts the sockets and bytes of the manager, Listen returns the
// socket that the manager bound, and Pass is a no-op. Code that must run only once, such as a
// migration or writing a pid file, should be guarded by [IsWorker]. Deferred
// calls of main do not run in a worker, which ends by os.Exit.
//
// Workers and successors start in the directory in which the program was started,
// so a relative os.Chdir of main works again. Their environment is that of the
// manager when it starts them: a variable that main removes is missing in the
// second run too.
//
// # Processes and goroutines
//
// In the manager one goroutine owns all state: the one inside a blocking call
// (Start, StartFunc, Run, WaitAllChildren, Upgrade). It spawns and reaps workers,
// forwards signals and runs the hooks. Between two blocking calls none of that
// happens, and nothing is lost: signals and exited workers wait for the next
// call. All other methods are safe for concurrent use, do not block, and take
// effect at the loop's next turn.
package prefork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/reaper"
	_ "github.com/prefork-go/prefork/internal/reaper/early" // becomes the reaper
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/self"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/sockets"
)

// process is this process, and inherited are the sockets that it was started
// with. They are the package's only state. In a process that no manager started,
// the initialization reads environment variables and the working directory.
var process, inherited = initialize()

func initialize() (*self.Process, *sockets.Inherited) {
	p := self.Read()
	in := sockets.NewInherited(p.Marker.Sockets, p.Send)
	p.Follow(in)
	return p, in
}

// IsWorker reports whether this process was started as a worker by a Manager. It
// is safe for concurrent use, also before New.
func IsWorker() bool { return process.IsWorker() }

// PassFile makes the successor of an upgrade inherit f; see Manager.Upgrade. The
// successor gets it from PassedFile under the same name. A nil f withdraws the
// name. The file must stay open until the upgrade; a closed file is left out. A
// successor that should pass it on again must call PassFile itself. In a worker
// PassFile is a no-op. PassFile is safe for concurrent use, also before
// New.
func PassFile(name string, f *os.File) { process.PassFile(name, f) }

// PassedFile returns the file that the predecessor of this process passed under
// the given name. It returns nil if there is none, in a process that is not a
// successor, and for the second call with the same name: the file belongs to the
// caller. Files that the program has not asked for are closed when the successor
// takes over. PassedFile is safe for concurrent use, also before New.
//
// The file is a duplicate of the predecessor's: both share the file offset, the
// file status flags, and a lock by flock.
func PassedFile(name string) *os.File { return process.PassedFile(name) }

// TookOver returns a channel that is closed when this process, a successor, has
// taken over, or its predecessor is gone. In a manager that is not a successor it
// is closed from the beginning. TookOver is safe for concurrent use, also before
// New.
func TookOver() <-chan struct{} { return process.TookOver() }

// HandedOver reports whether a successor has taken over from this process. The
// passed files then belong to the successor. HandedOver is safe for concurrent
// use.
func HandedOver() bool { return process.HandedOver.Load() }

// ErrCrashLoop is returned by Run and WaitAllChildren if the Manager has shut
// down because its workers kept failing; see Config.CrashLoop.
var ErrCrashLoop = errors.New("prefork: crash loop")

// ErrNotInherited is returned by Listen if the process was not started with the
// requested socket, and must not bind it itself.
var ErrNotInherited = sockets.ErrNotInherited

// misuse panics for a call that can never be right, since no caller could handle
// an error.
func misuse(format string, args ...any) {
	panic("prefork: " + fmt.Sprintf(format, args...))
}

// noSlot is the slot of a standby.
const noSlot = marker.NoSlot

// State is the state of a worker, as the manager sees it. A worker only moves on
// to later states, except that a standby becomes starting when it gets a slot.
type State uint8

const (
	StateNone     = State(pool.StateNone)     // not spawned yet
	StateStarting = State(pool.StateStarting) // its process runs and is not ready
	StateStandby  = State(pool.StateStandby)  // started in advance, waiting in Start without a slot
	StateReady    = State(pool.StateReady)    // at work
	StateStopping = State(pool.StateStopping) // sent the stop signal
	StateKilled   = State(pool.StateKilled)   // sent SIGKILL
	StateGone     = State(pool.StateGone)     // reaped
)

func (s State) String() string {
	return name(int(s), "none", "starting", "standby", "ready", "stopping", "killed", "gone")
}

// Reason is the reason why a worker exited.
//
// ReasonOutOfMemory means that a SIGKILL that this Manager did not send ended the
// worker, and that the OOM killer was active in the workers' cgroup: in
// Resources.Cgroup or, by default, in the manager's cgroup at the time of New. It
// requires Linux and a cgroup with the memory controller; elsewhere such a worker
// has crashed. A worker that exceeds a limit of its own (as, data) has crashed
// too: the Go runtime ends it with "fatal error: out of memory" and exit code 2.
type Reason uint8

const (
	// ReasonFinished: it exited on its own with code 0, or one of
	// Config.SuccessCodes.
	ReasonFinished = Reason(pool.ReasonFinished)
	// ReasonCrashed: it exited on its own with another code, or by a signal.
	ReasonCrashed = Reason(pool.ReasonCrashed)
	// ReasonStopped: it was stopped, or killed by SignalAllChildren.
	ReasonStopped = Reason(pool.ReasonStopped)
	// ReasonRecycled: it was replaced; see Config.Recycle.
	ReasonRecycled = Reason(pool.ReasonRecycled)
	// ReasonStopTimeout: it did not stop within StopTimeout, or until the second
	// interrupt, and was killed.
	ReasonStopTimeout = Reason(pool.ReasonStopTimeout)
	// ReasonStuck: it was busy for too long without a heartbeat, and was killed.
	ReasonStuck = Reason(pool.ReasonStuck)
	// ReasonReadyTimeout: it was not ready in time, or executed this program again,
	// and was killed.
	ReasonReadyTimeout = Reason(pool.ReasonReadyTimeout)
	// ReasonOutOfMemory: the OOM killer ended it.
	ReasonOutOfMemory = Reason(pool.ReasonOutOfMemory)
)

func (r Reason) String() string {
	return name(int(r), "none", "finished", "crashed", "stopped", "recycled", "stop timeout", "stuck", "ready timeout", "out of memory")
}

func name(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown (%d)", i)
}

// The bytes of a worker's status that have a meaning. Any byte other than
// StatusNone and StatusIdle means busy; StatusBusy is for a program that does not
// distinguish kinds of work.
const (
	StatusNone = scoreboard.None // no worker in the slot, or one that has not called SetStatus
	StatusIdle = scoreboard.Idle
	StatusBusy = 'A' // active, as in Parallel::Prefork
)

// ExitStatus is the status of a process that has exited: with Code, or by Signal.
// If other code of the program has waited for the process (wait4(-1), for
// example), Unknown is true and nothing else is known.
type ExitStatus struct {
	Code     int
	Signal   syscall.Signal // 0 for none
	CoreDump bool
	Unknown  bool
}

func (s ExitStatus) String() string {
	switch {
	case s.Unknown:
		return statusUnknown
	case s.Signal == 0:
		return statusExitCode + strconv.Itoa(s.Code)
	case s.CoreDump:
		return sig.Name(s.Signal) + statusDumped
	}
	return sig.Name(s.Signal)
}

// Exit describes a worker that was reaped. Slot is -1 for a standby.
type Exit struct {
	Slot       int `json:"slot"`
	Generation int `json:"gen"`
	Ordinal    int `json:"ordinal"`
	PID        int `json:"pid"`

	Status ExitStatus      `json:"status"`
	Reason Reason          `json:"reason"`
	Uptime time.Duration   `json:"uptime"`
	Usage  *syscall.Rusage `json:"-"` // nil if the status is unknown

	ReadyAfter time.Duration `json:"ready_after,omitzero"` // as in WorkerInfo
	Requests   uint64        `json:"requests,omitempty"`   // as counted by Worker.Served
}

func (e Exit) String() string {
	return fmt.Sprintf("worker %d (%s, generation %d) %v: %v after %v", e.PID, slotName(e.Slot), e.Generation, e.Reason, e.Status, e.Uptime.Round(time.Millisecond))
}

func slotName(slot int) string {
	if slot == noSlot {
		return "standby"
	}
	return fmt.Sprintf("slot %d", slot)
}

// checkDepth returns how many managers are above this process.
func checkDepth() (int, error) {
	depth, err := marker.Depth(func(pid int) bool { return binary.Runs(pid, nil) })
	if errors.Is(err, errors.ErrUnsupported) {
		return 0, fmt.Errorf("prefork: %s has no signals and no inheritable sockets: %w", runtime.GOOS, err)
	} else if err != nil {
		return 0, fmt.Errorf("prefork: %w", err)
	}
	if depth >= marker.MaxDepth {
		return 0, fmt.Errorf("prefork: this would be manager number %d above one another: the program starts itself, most likely by mistake (is it its own Command? did a wrapper drop %s from its environment?)", depth+1, marker.Env)
	}
	return depth, nil
}

// needReaper executes the program again, below a reaper, if it must have one.
func (s *managerSide) needReaper(exe string) error {
	if !s.cfg.Reaper && !s.cfg.ReaperKills && (os.Getpid() != 1 || !reaper.Supported) {
		return nil
	}
	err := process.BecomeReaper(exe, s.cfg.ReaperKills)
	if errors.Is(err, self.ErrNoGuard) {
		return configError("ReaperKills", "%w", err)
	}
	if errors.Is(err, self.ErrNoReaper) {
		s.log.Warn("no reaper for a successor; to have one, stop the program and start it again")
		return nil
	}
	if err != nil {
		return fmt.Errorf("prefork: start below a reaper (Config.Reaper, or process 1): %w", err)
	}
	return nil
}

// followReaper shuts the Manager down when its reaper is gone, since no process
// would forward signals to it or report its exit.
func (s *managerSide) followReaper() {
	if process.Reaper == nil {
		return
	}
	unfollow := context.AfterFunc(process.ReaperGone, func() {
		s.log.Error("reaper is gone, shutting down", "reaper", process.Reaper.PID())
		s.shutDown("the reaper is gone", nil)
	})
	s.traps = append(s.traps, func() { unfollow() })
}
