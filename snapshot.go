package prefork

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/sig"
)

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
	// ReasonFinished: it exited on its own with code 0.
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

// WorkerInfo describes a worker. Slot is -1 for a standby that has none yet.
type WorkerInfo struct {
	Slot       int `json:"slot"`
	Generation int `json:"gen"`
	Ordinal    int `json:"ordinal"`
	PID        int `json:"pid"`

	State   State     `json:"state"`
	Started time.Time `json:"started,omitzero"`
	Paused  bool      `json:"paused,omitempty"` // it waits at its checkpoint (Manager.Pause)

	// Status and Requests are set in a Snapshot.
	// Status is StatusNone before the first SetStatus, and for a Command.
	Status   byte   `json:"status"`             // as set by Worker.SetStatus
	Requests uint64 `json:"requests,omitempty"` // as counted by Worker.Served
}

func (w WorkerInfo) String() string {
	text := fmt.Sprintf("worker %d (%s, generation %d) %v", w.PID, slotName(w.Slot), w.Generation, w.State)
	if w.Paused {
		text += ", paused"
	}
	return text
}

// Snapshot is a consistent copy of a Manager's state.
type Snapshot struct {
	Name       string       `json:"name"`
	PID        int          `json:"pid"` // of the manager
	Generation int          `json:"gen"`
	MaxWorkers int          `json:"max_workers"`
	Pausing    bool         `json:"pausing"`  // the workers are asked to pause (Manager.Pause)
	Standbys   int          `json:"standbys"` // among Workers, also those that are stopping
	Workers    []WorkerInfo `json:"workers"`  // not yet reaped, in the order of their spawns
	Sockets    []SocketInfo `json:"sockets"`  // in the order of the calls of Listen
}

// AllPaused reports whether all workers that are starting or ready have paused.
// Standbys have nothing to pause.
func (s Snapshot) AllPaused() bool {
	for _, w := range s.Workers {
		if w.Slot != noSlot && (w.State == StateStarting || w.State == StateReady) && !w.Paused {
			return false
		}
	}
	return s.Pausing
}

// SocketInfo describes a socket on which the pool listens.
type SocketInfo struct {
	Network   string `json:"network"`
	Address   string `json:"address"`    // as the kernel reports it
	PerWorker bool   `json:"per_worker"` // each slot has a socket of its own
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
