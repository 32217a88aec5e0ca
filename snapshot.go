package prefork

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/change"
	"github.com/prefork-go/prefork/internal/follow"
	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
)

// Snapshot is a consistent copy of a Manager's state: it has every change up to
// the event with number Seq, and none after it.
type Snapshot struct {
	Name       string       `json:"name"`
	PID        int          `json:"pid"`              // of the manager
	Seq        uint64       `json:"seq"`              // of the last event; see Record
	Started    time.Time    `json:"started,omitzero"` // when New was called
	Generation int          `json:"gen"`              // that began last
	MaxWorkers int          `json:"max_workers"`
	Pausing    bool         `json:"pausing"`  // the workers are asked to pause (Manager.Pause)
	Standbys   int          `json:"standbys"` // among Workers, also those that are stopping
	Workers    []WorkerInfo `json:"workers"`  // not yet reaped, in the order of their spawns
	Sockets    []SocketInfo `json:"sockets"`  // in the order of the calls of Listen
	Slots      []SlotInfo   `json:"slots"`    // from 0 to the last that has had a worker or is held

	// Settled is true while all workers that are wanted are ready, all workers at
	// work are of the generation that serves, and no reload, roll or spawn is under
	// way. Slots that are held or done need no worker. Workers that are stopping do
	// not count. Workers of an older generation
	// count as of this one if nothing replaces them before they exit. A generation
	// that has settled can still fail, within 5 s; see Forward.Rolling.
	Settled bool `json:"settled"`
	// Serving is the generation that serves, and that empty slots get. It differs
	// from Generation while that replaces the workers, and after it has failed.
	Serving int `json:"serving"`
	// Change is the reload or upgrade that is under way; nil for none. During an
	// upgrade it is that.
	Change *Change `json:"change,omitempty"`
	// LastReload and LastUpgrade tell how the last ones ended; nil for none.
	LastReload  *Outcome `json:"last_reload,omitempty"`
	LastUpgrade *Outcome `json:"last_upgrade,omitempty"`
	// Stopping is when the shutdown began; zero for none.
	Stopping time.Time `json:"stopping,omitzero"`
	// SpawnsHeldUntil is when the next spawn may be tried after failed ones; zero if
	// none has failed.
	SpawnsHeldUntil time.Time `json:"spawns_held_until,omitzero"`

	// Requests and CPU are those of all workers that this Manager has had. They never
	// decrease. CPU is the time used in the system and in the program. Outside Linux it
	// lacks the workers that still run. Of more than 200 workers, each Snapshot reads
	// the CPU time of 200, in turn.
	Requests uint64        `json:"requests"`
	CPU      time.Duration `json:"cpu"`

	Loop Loop `json:"loop"`
}

// Change describes a reload or an upgrade that is under way.
type Change struct {
	// Kind is "reload" if workers are replaced one after the other, "restart" if all
	// are stopped at once, and "upgrade".
	Kind string `json:"kind"`
	// Generation is the generation that begins, or runs during an upgrade.
	Generation int       `json:"gen"`
	Began      time.Time `json:"began"`

	// Replaced is how many workers of the new generation are ready, Of how many are
	// wanted. Both are 0 in an upgrade.
	Replaced int `json:"replaced"`
	Of       int `json:"of"`

	// Successor is the pid of an upgrade's new manager; 0 before it was started.
	// Deadline is when it must be ready (Config.UpgradeTimeout); zero for never.
	Successor int       `json:"successor,omitempty"`
	Deadline  time.Time `json:"deadline,omitzero"`
}

// Outcome describes a reload or an upgrade that has ended. Generation is as in
// Change. Err is nil if it has succeeded.
type Outcome struct {
	Began, Ended time.Time
	Generation   int
	Err          error
}

// Loop describes what the goroutine does that runs the pool. While Hook is not
// empty, nothing else happens in the pool.
type Loop struct {
	Call  string    `json:"call"`           // the blocking call, or ""
	Hook  string    `json:"hook"`           // the hook that runs, or ""
	Since time.Time `json:"since,omitzero"` // of Hook, or else of Call
}

// SlotInfo describes a slot, also one that waits for its next worker.
type SlotInfo struct {
	Slot       int       `json:"slot"`
	Spawns     int       `json:"spawns"`               // workers that it has had
	WaitsUntil time.Time `json:"waits_until,omitzero"` // no worker before; zero if it does not wait
	Crashes    int       `json:"crashes"`              // in a row, of the newest generation
	LastExit   *Exit     `json:"last_exit,omitempty"`  // nil for none
	LastExitAt time.Time `json:"last_exit_at,omitzero"`
	Held       bool      `json:"held,omitempty"` // it gets no other worker (Manager.Hold)
	Done       bool      `json:"done,omitempty"` // it stays empty (Config.Restart)
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
	Since   time.Time `json:"since,omitzero"` // in State
	Started time.Time `json:"started,omitzero"`
	Paused  bool      `json:"paused,omitempty"` // it waits at its checkpoint (Manager.Pause)

	// Deadline is when the worker will be killed: it must be ready until then, or
	// gone after a stop. Zero means never.
	Deadline time.Time `json:"deadline,omitzero"`
	// ReadyAfter is the time from its spawn until it was ready; for a standby, from
	// when it got its slot. 0 means not yet.
	ReadyAfter time.Duration `json:"ready_after,omitzero"`

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

// view is the state that other goroutines read. The loop alone changes it, except
// as noted.
type view struct {
	startedAt  time.Time       // of the Manager
	workers    map[int]*worker // by ordinal
	standbys   int             // of these
	generation int
	max        int            // as set by SetMaxWorkers
	holds      map[int]bool   // as set by Hold and Release
	paused     bool           // as set by Pause and Resume
	passed     *launch.Passed // as set by Pass
	settled    bool
	stopping   time.Time // when the shutdown began
	feed       follow.Feed[Record]
	changes    change.Tracker
	exits      []slotExit // the last ones, by slot
	requests   uint64     // of workers that are gone
	cpu        time.Duration
	upgradeDue pool.Time // when the upgrade under way fails
	cpuRead    int       // the ordinal of the last worker whose CPU time was read
}

type slotExit struct {
	exit *Exit
	at   time.Time
}

// enter notes a change of a worker's state.
func (w *worker) enter(s State) {
	now := time.Now()
	if s == StateReady {
		w.ReadyAfter = now.Sub(w.Since)
	}
	w.State, w.Since = s, now
}

// setReaped notes that the pid of a worker may be used again.
func (l *loop) setReaped(w *worker, reaped bool) {
	l.mu.Lock()
	w.reaped = reaped
	l.mu.Unlock()
}

// cpuReads is for how many workers one Snapshot reads the CPU time: it must not
// take milliseconds.
const cpuReads = 200

// readCPU reads the CPU time of workers, in turn if they are many. The caller holds
// mu.
func (l *loop) readCPU(workers []*worker) {
	first, _ := slices.BinarySearchFunc(workers, l.cpuRead+1, func(w *worker, ordinal int) int { return cmp.Compare(w.Ordinal, ordinal) })
	for i := range min(len(workers), cpuReads) {
		w := workers[(first+i)%len(workers)]
		if l.cpuRead = w.Ordinal; !w.reaped {
			w.cpu = max(w.cpu, proc.CPUTime(w.PID))
		}
	}
}

// noteExit describes the exit of a worker that was reaped, and adds its totals.
// The caller holds mu.
func (l *loop) noteExit(w *worker, e pool.Effect) Exit {
	exit := Exit{
		Slot: w.Slot, Generation: w.Generation, Ordinal: w.Ordinal, PID: w.PID,
		Status: ExitStatus(w.status), Reason: Reason(e.Reason), Uptime: l.now() - w.spawnedAt, Usage: w.usage, ReadyAfter: w.ReadyAfter,
	}
	if w.cell() != nil {
		exit.Requests = w.cell().Read().Served
	}
	l.changes.WorkerLost(exit.Generation)
	l.requests += exit.Requests
	l.cpu += max(w.cpu, proc.UsedCPU(w.usage))
	if exit.Slot != noSlot {
		for len(l.exits) <= exit.Slot {
			l.exits = append(l.exits, slotExit{})
		}
		l.exits[exit.Slot] = slotExit{exit.clone(), time.Now()}
	}
	return exit
}

// wall returns a time of the policy as a time of the clock that is now at now;
// zero for never.
func (l *loop) wall(t pool.Time, now time.Time) time.Time {
	if t == pool.Never || t == math.MaxInt64 {
		return time.Time{}
	}
	return now.Add(t - now.Sub(l.origin))
}

// info describes a worker at now.
func (l *loop) info(w *worker, now time.Time) WorkerInfo {
	info := w.WorkerInfo
	info.Deadline = l.wall(l.pool.Deadline(w.Ordinal), now)
	return info
}

func (s *managerSide) snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lockedSnapshot()
}

// lockedSnapshot is snapshot for a caller that holds mu.
func (s *managerSide) lockedSnapshot() Snapshot {
	all := Snapshot{
		Name: s.cfg.Name, PID: os.Getpid(), Seq: s.feed.Seq(), Started: s.startedAt, Generation: s.generation, MaxWorkers: s.max,
		Standbys: s.standbys, Pausing: s.paused, Settled: s.settled, Serving: s.generation, Stopping: s.stopping,
		Requests: s.requests, CPU: s.cpu,
	}
	if call := s.busy.Current(); call != nil {
		all.Loop = Loop{Call: call.Name, Since: call.Since}
		if hook := s.hooks.Current(); hook != nil {
			all.Loop.Hook, all.Loop.Since = hook.Name, hook.Since
		}
	}
	if c, ok := s.changes.Now(); ok {
		all.Change = &Change{Kind: string(c.Kind), Generation: c.Generation, Began: c.Began, Successor: c.Successor}
	}
	reload, upgrade := s.changes.Last()
	all.LastReload, all.LastUpgrade = (*Outcome)(clone(reload)), (*Outcome)(clone(upgrade))
	if s.loop != nil {
		s.loop.addPool(&all, time.Now())
	}
	for _, info := range s.sockets.Info() {
		all.Sockets = append(all.Sockets, SocketInfo{info.Network, info.Address, info.PerWorker})
	}
	return all
}

// clone copies a value, so that the caller of Snapshot may change it.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	q := *p
	return &q
}

func (e *Exit) clone() *Exit {
	if e = clone(e); e != nil {
		e.Usage = clone(e.Usage)
	}
	return e
}

// addPool adds the workers and slots to a snapshot. The caller holds mu.
func (l *loop) addPool(all *Snapshot, now time.Time) {
	all.Serving = l.pool.ServingGeneration()
	if held := l.wall(l.pool.HeldUntil(), now); held.After(now) {
		all.SpawnsHeldUntil = held
	}
	workers := slices.SortedFunc(maps.Values(l.workers), func(a, b *worker) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	l.readCPU(workers)
	all.Workers = make([]WorkerInfo, 0, len(workers))
	for _, w := range workers {
		info := l.info(w, now)
		if info.Status = StatusNone; w.cell() != nil {
			status := w.cell().Read()
			info.Status, info.Requests = status.C, status.Served
		}
		all.Requests += info.Requests
		all.CPU += w.cpu
		all.Workers = append(all.Workers, info)
		if c := all.Change; c != nil && c.Kind != string(change.Upgrade) && w.State == StateReady && w.Generation >= c.Generation {
			c.Replaced++
		}
	}
	switch c := all.Change; {
	case c == nil:
	case c.Kind == string(change.Upgrade):
		c.Deadline = l.wall(l.upgradeDue, now)
	default:
		c.Of = max(l.pool.Wanted(), c.Replaced)
	}
	all.Slots = make([]SlotInfo, l.pool.Slots())
	for i := range all.Slots {
		s := l.pool.Slot(i)
		info := SlotInfo{Slot: i, Spawns: s.Spawns, Crashes: s.Crashes, Held: s.Held, Done: s.Done}
		if due := l.wall(s.Due, now); due.After(now) {
			info.WaitsUntil = due
		}
		if i < len(l.exits) {
			info.LastExit, info.LastExitAt = l.exits[i].exit.clone(), l.exits[i].at
		}
		all.Slots[i] = info
	}
}

func (s *managerSide) follow(f func(Record)) (now Snapshot, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop = s.lockedFollow(f)
	return s.lockedSnapshot(), stop
}

// lockedFollow is follow for a caller that holds mu.
func (s *managerSide) lockedFollow(f func(Record)) (stop func()) {
	remove := s.feed.Add(f)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		remove()
	}
}

// stamped is an event with its number, and with those who follow.
type stamped struct {
	Record
	to follow.Followers[Record]
}

// stamp numbers an event. The caller holds mu, and has made the change of the view
// that the event reports: Follow then finds both or neither.
func (v *view) stamp(ev Event) stamped {
	seq, to := v.feed.Next()
	return stamped{Record{Seq: seq, Time: time.Now(), Event: ev}, to}
}

// emit is stamp and publish, for an event that reports no change of the view.
func (s *managerSide) emit(ev Event) {
	s.mu.Lock()
	report := s.stamp(ev)
	s.mu.Unlock()
	s.publish(report)
}
