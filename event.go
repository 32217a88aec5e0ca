package prefork

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
)

// State of a worker, as the manager sees it. A worker only ever moves on to a later state, save that a standby which is given a
// slot starts there.
type State uint8

const (
	StateNone     = State(pool.None)     // not spawned yet
	StateStarting = State(pool.Starting) // its process runs, and is not ready
	StateStandby  = State(pool.Standby)  // started ahead, parked in Start without a slot
	StateReady    = State(pool.Ready)    // at work
	StateStopping = State(pool.Stopping) // told to stop
	StateKilled   = State(pool.Killed)   // sent SIGKILL
	StateGone     = State(pool.Gone)     // reaped
)

func (s State) String() string {
	return name(int(s), "none", "starting", "standby", "ready", "stopping", "killed", "gone")
}

// Reason is why a worker ended.
//
// ReasonOutOfMemory is for a worker that ended by a SIGKILL which this Manager did not send, while the kernel counted one that it had
// sent for want of memory in the cgroup of the workers: in Resources.Cgroup, or else that of the manager when New was called. It takes Linux and
// a cgroup with the memory controller; elsewhere such a worker has crashed. So has one that came up against a limit of
// its own (as, data): there the kernel kills nobody, and the Go runtime ends the process with "fatal error: out of memory" and exit code 2.
type Reason uint8

const (
	ReasonFinished     = Reason(pool.Finished)    // ended by itself, with exit code 0
	ReasonCrashed      = Reason(pool.Crashed)     // ended by itself, with another code or by a signal
	ReasonStopped      = Reason(pool.Stopped)     // was told to stop, or killed by SignalAllChildren
	ReasonRecycled     = Reason(pool.Retired)     // was recycled
	ReasonStopTimeout  = Reason(pool.Overdue)     // was told to stop, did not within StopTimeout (or by the second interrupt), and was killed
	ReasonStuck        = Reason(pool.Stuck)       // was busy for too long without a sign of life, and was killed
	ReasonReadyTimeout = Reason(pool.NeverReady)  // was killed, because it was not ready in time or replaced itself by this program
	ReasonOutOfMemory  = Reason(pool.OutOfMemory) // was killed by the kernel for want of memory
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

// ExitStatus is how a process ended: by exit with Code, or by Signal. Where other code of the program waited for the
// process (a wait4(-1), say) and took its status, Unknown is true and nothing else is known.
type ExitStatus struct {
	Code     int
	Signal   syscall.Signal // 0 for none
	CoreDump bool
	Unknown  bool
}

func (s ExitStatus) String() string {
	switch {
	case s.Unknown:
		return "unknown status"
	case s.Signal == 0:
		return fmt.Sprintf("exit code %d", s.Code)
	case s.CoreDump:
		return signalName(s.Signal) + " (core dumped)"
	}
	return signalName(s.Signal)
}

// Exit is the end of a worker. Slot is -1 for a standby.
type Exit struct {
	Slot, Generation, Ordinal, PID int

	Status ExitStatus
	Reason Reason
	Uptime time.Duration
	Usage  *syscall.Rusage // nil where the status is unknown
}

func (e Exit) String() string {
	return fmt.Sprintf("worker %d (%s, generation %d) %v: %v after %v", e.PID, slotName(e.Slot), e.Generation, e.Reason, e.Status, e.Uptime.Round(time.Millisecond))
}

// slotName is a slot in words.
func slotName(slot int) string {
	if slot == noSlot {
		return "standby"
	}
	return fmt.Sprintf("slot %d", slot)
}

// WorkerInfo is a worker as the manager sees it. Slot is -1 for a standby, until it is given one.
type WorkerInfo struct {
	Slot, Generation, Ordinal, PID int

	State   State
	Started time.Time
	Paused  bool // it waits at its checkpoint (Manager.Pause)

	// What the worker has published, in a Snapshot.
	Status   byte   // by SetStatus; StatusNone before the first, and for a Command
	Requests uint64 // the sum of all Served
}

func (w WorkerInfo) String() string {
	text := fmt.Sprintf("worker %d (%s, generation %d) %v", w.PID, slotName(w.Slot), w.Generation, w.State)
	if w.Paused {
		text += ", paused"
	}
	return text
}

// Event is a change of state. It is one of
//
//	GenerationEvent   a generation of workers begins
//	StateEvent        a worker was spawned, was ready, was told to stop, was killed
//	ExitEvent         a worker was reaped
//	LeftoverEvent         something is left of its process group, or is not any more
//	DelayEvent        a slot waits before its next spawn
//	SpawnFailedEvent  a worker could not be spawned
//	SignalEvent       a signal was received, and forwarded as the table says
//	ResizeEvent       MaxWorkers was changed
//	ReloadFailedEvent Config.Reload failed, and the workers go on
//	RolledEvent       a rolling replacement has come to its end
//	RollFailedEvent   one was given up
//	CrashLoopEvent    the Manager gives up
//	PauseEvent        the workers are told to pause
//	PausedEvent       a worker has paused
//	ResumeEvent       the workers are told to go on
//	UpgradeEvent      a successor was started
//	UpgradedEvent     it has taken over
//	UpgradeFailedEvent it has not, or could not be started
//
// and no other type. String says it in a line.
type Event interface {
	fmt.Stringer
	event()
}

type (
	// GenerationEvent says that Start began a generation.
	GenerationEvent struct{ Generation, MaxWorkers int }

	// StateEvent says that a worker went from state From to Worker.State. Reason is why it was killed, in state killed.
	StateEvent struct {
		Worker WorkerInfo
		From   State
		Reason Reason
	}

	// ExitEvent says that a worker was reaped, in whatever state it was.
	ExitEvent struct {
		Exit Exit
		From State
	}

	// LeftoverEvent says what becomes of the process group of a worker that was reaped (Config.StopGroup): State is StateStopping
	// where something is left of it, which was told to stop, then StateGone or StateKilled.
	LeftoverEvent struct {
		Worker WorkerInfo
		State  State
	}

	// DelayEvent says that a slot waits before its next spawn, because its workers end too soon. Slot is -1 where the next
	// standby waits: for what it was promoted for, or because standbys end too soon.
	DelayEvent struct {
		Slot int
		For  time.Duration
	}

	// SpawnFailedEvent says that a spawn failed, and after what time the next is tried.
	SpawnFailedEvent struct {
		Err   *SpawnError
		Retry time.Duration
	}

	// SignalEvent says that a signal was received and what is sent to the workers for it: nil for nothing.
	SignalEvent struct {
		Received, Sent os.Signal
		Interval       time.Duration
		Rolling        bool
	}

	// ResizeEvent says that MaxWorkers was changed.
	ResizeEvent struct{ From, To int }

	// ReloadFailedEvent says that Config.Reload failed.
	ReloadFailedEvent struct{ Err error }

	// RolledEvent says that all workers are of Generation, or of a later one, but for those that were told to stop. A
	// RollFailedEvent can follow within a second.
	RolledEvent struct{ Generation int }

	// RollFailedEvent says that a generation was given up, and which one goes on. Err is a *SpawnError where a worker of
	// it could not be spawned.
	RollFailedEvent struct {
		Generation, Kept int
		Err              error
	}

	// CrashLoopEvent says that so many workers failed within Window, none being ready, and that the Manager gives up. The
	// shutdown signal follows.
	CrashLoopEvent struct {
		Failures int
		Window   time.Duration
	}

	// PauseEvent says that the workers are told to pause.
	PauseEvent struct{}

	// PausedEvent says that a worker waits at its checkpoint, and has nothing to do.
	PausedEvent struct{ Worker WorkerInfo }

	// ResumeEvent says that the workers are told to go on. None of them counts as paused any more.
	ResumeEvent struct{}

	// UpgradeEvent says that a new manager was started, as a process with the pid PID.
	UpgradeEvent struct{ PID int }

	// UpgradedEvent says that it has taken over. The shutdown signal follows.
	UpgradedEvent struct{ PID int }

	// UpgradeFailedEvent says that it has not, and has ended or, where a shutdown came meanwhile, been told to. PID is 0 if
	// none was started.
	UpgradeFailedEvent struct {
		PID int
		Err error
	}
)

func (GenerationEvent) event()    {}
func (StateEvent) event()         {}
func (ExitEvent) event()          {}
func (LeftoverEvent) event()      {}
func (DelayEvent) event()         {}
func (SpawnFailedEvent) event()   {}
func (SignalEvent) event()        {}
func (ResizeEvent) event()        {}
func (ReloadFailedEvent) event()  {}
func (RolledEvent) event()        {}
func (CrashLoopEvent) event()     {}
func (RollFailedEvent) event()    {}
func (PauseEvent) event()         {}
func (PausedEvent) event()        {}
func (ResumeEvent) event()        {}
func (UpgradeEvent) event()       {}
func (UpgradedEvent) event()      {}
func (UpgradeFailedEvent) event() {}

func (e GenerationEvent) String() string {
	return fmt.Sprintf("generation %d of %d workers begins", e.Generation, e.MaxWorkers)
}

func (e StateEvent) String() string {
	if e.Reason != 0 {
		return fmt.Sprintf("%v: %v", e.Worker, e.Reason)
	}
	return e.Worker.String()
}

func (e ExitEvent) String() string { return e.Exit.String() }

func (e LeftoverEvent) String() string {
	return fmt.Sprintf("leftover processes of worker %d (%s, generation %d): %v", e.Worker.PID, slotName(e.Worker.Slot), e.Worker.Generation, e.State)
}

func (e DelayEvent) String() string {
	return fmt.Sprintf("%s waits %v before its next spawn", slotName(e.Slot), e.For.Round(time.Millisecond))
}

func (e SpawnFailedEvent) String() string {
	if e.Retry == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v; next try in %v", e.Err, e.Retry.Round(time.Millisecond))
}

func (e SignalEvent) String() string {
	if e.Rolling {
		return fmt.Sprintf("%s received, each worker will be sent %s when its replacement is ready", signalName(e.Received), signalName(e.Sent))
	}
	if e.Interval > 0 {
		return fmt.Sprintf("%s received, %s sent to one worker each %v", signalName(e.Received), signalName(e.Sent), e.Interval)
	}
	return fmt.Sprintf("%s received, %s sent to the workers", signalName(e.Received), signalName(e.Sent))
}

func (e ResizeEvent) String() string { return fmt.Sprintf("from %d to %d workers", e.From, e.To) }

func (e ReloadFailedEvent) String() string {
	return fmt.Sprintf("reload failed, the workers go on as they are: %v", e.Err)
}

func (e RolledEvent) String() string {
	return fmt.Sprintf("all workers are of generation %d", e.Generation)
}

func (e RollFailedEvent) String() string {
	return fmt.Sprintf("generation %d given up, generation %d goes on: %v", e.Generation, e.Kept, e.Err)
}

func (e CrashLoopEvent) String() string {
	return fmt.Sprintf("giving up after %d failures of workers within %v", e.Failures, e.Window)
}

func (e PauseEvent) String() string { return "the workers are told to pause" }

func (e PausedEvent) String() string { return e.Worker.String() }

func (e ResumeEvent) String() string { return "the workers are told to go on" }

func (e UpgradeEvent) String() string { return fmt.Sprintf("successor %d was started", e.PID) }

func (e UpgradedEvent) String() string { return fmt.Sprintf("successor %d has taken over", e.PID) }

func (e UpgradeFailedEvent) String() string {
	return fmt.Sprintf("upgrade failed, this manager goes on: %v", e.Err)
}

// Snapshot is a consistent copy of a Manager's state.
type Snapshot struct {
	Name       string
	PID        int // the manager's
	Generation int
	MaxWorkers int
	Pausing    bool         // the workers are told to pause (Manager.Pause)
	Standbys   int          // how many of Workers are standbys, or were when they were told to stop
	Workers    []WorkerInfo // in order of their spawn; those that were reaped are not among them
	Sockets    []SocketInfo // in order of the calls of Listen
}

// SocketInfo is what the Manager listens on.
type SocketInfo struct {
	Network, Address string // the address is the one that is bound
	PerWorker        bool   // each slot has a socket of its own
}

func (s SocketInfo) String() string {
	how := "one socket"
	if s.PerWorker {
		how = "a socket for each worker"
	}
	return fmt.Sprintf("%s %s, %s", s.Network, s.Address, how)
}

func (s Snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "manager %d", s.PID)
	if s.Name != "" {
		fmt.Fprintf(&b, " of %s", s.Name)
	}
	fmt.Fprintf(&b, ": generation %d, %d of %d workers", s.Generation, len(s.Workers)-s.Standbys, s.MaxWorkers)
	if s.Standbys > 0 {
		fmt.Fprintf(&b, ", %d standing by", s.Standbys)
	}
	if s.Pausing {
		paused := 0
		for _, w := range s.Workers {
			if w.Paused {
				paused++
			}
		}
		fmt.Fprintf(&b, ", %d paused", paused)
	}
	for _, l := range s.Sockets {
		fmt.Fprintf(&b, "\n  %v", l)
	}
	for _, w := range s.Workers {
		fmt.Fprintf(&b, "\n  %v", w)
	}
	return b.String()
}

func exitStatus(s proc.Status) ExitStatus {
	return ExitStatus{Code: s.Code, Signal: s.Signal, CoreDump: s.CoreDump, Unknown: s.Unknown}
}
