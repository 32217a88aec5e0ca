package prefork

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/follow"
	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/pool"
)

// Snapshot is a consistent copy of a Manager's state.
type Snapshot struct {
	Name       string       `json:"name"`
	PID        int          `json:"pid"` // of the manager
	Seq        uint64       `json:"seq"` // of the last event; see Record
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

// exitOf describes the exit of a worker that was reaped.
func (l *loop) exitOf(w *worker, e pool.Effect) Exit {
	return Exit{
		Slot: w.Slot, Generation: w.Generation, Ordinal: w.Ordinal, PID: w.PID,
		Status: ExitStatus(w.status), Reason: Reason(e.Reason), Uptime: l.now() - w.spawnedAt, Usage: w.usage,
	}
}

// view is the state that other goroutines read. The loop alone changes the
// workers and the generation.
type view struct {
	workers    map[int]*worker // by ordinal
	standbys   int             // of these
	generation int
	max        int
	paused     bool           // as set by Pause and Resume
	passed     *launch.Passed // as set by Pass
	feed       follow.Feed[Record]
}

func (s *managerSide) snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lockedSnapshot()
}

// lockedSnapshot is snapshot for a caller that holds mu.
func (s *managerSide) lockedSnapshot() Snapshot {
	all := Snapshot{
		Name: s.cfg.Name, PID: os.Getpid(), Seq: s.feed.Seq(), Generation: s.generation, MaxWorkers: s.max,
		Standbys: s.standbys, Pausing: s.paused,
	}
	all.Workers = make([]WorkerInfo, 0, len(s.workers))
	for _, w := range s.workers {
		info := w.WorkerInfo
		if info.Status = StatusNone; w.cell() != nil {
			status := w.cell().Read()
			info.Status, info.Requests = status.C, status.Served
		}
		all.Workers = append(all.Workers, info)
	}
	for _, info := range s.sockets.Info() {
		all.Sockets = append(all.Sockets, SocketInfo{info.Network, info.Address, info.PerWorker})
	}
	slices.SortFunc(all.Workers, func(a, b WorkerInfo) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return all
}
