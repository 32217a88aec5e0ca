package pool

import (
	"syscall"
	"time"
)

// Time is a moment on the pool's own monotonic scale: the time since an origin
// that the caller has chosen. Setting the wall clock does not change it.
type Time = time.Duration

// Never is the time of an event that does not happen.
const Never Time = -1

// State is the state of a worker. A worker only moves to later states, except
// that a standby moves to StateStarting when it gets a slot.
type State uint8

const (
	StateNone     State = iota // not spawned yet
	StateStarting              // its process runs and is not ready
	StateStandby               // spawned in advance, parked without a slot
	StateReady                 // at work
	StateStopping              // sent the stop signal
	StateKilled                // sent SIGKILL
	StateGone                  // reaped
)

// Reason is why a worker ended, as far as the policy knows.
type Reason uint8

const (
	ReasonFinished     Reason = iota + 1 // exited by itself, with exit code 0
	ReasonCrashed                        // exited by itself, with another status
	ReasonStopped                        // exited after the stop signal
	ReasonRecycled                       // stopped because its replacement was ready
	ReasonStopTimeout                    // killed because it did not stop in time
	ReasonStuck                          // busy for too long without a heartbeat
	ReasonReadyTimeout                   // killed because it was not ready in time
	ReasonOutOfMemory                    // killed by the OOM killer
)

// Kind is the kind of an Event.
type Kind uint8

const (
	// Tick: time has passed.
	Tick Kind = iota
	// Begin: a generation begins, and missing workers are spawned.
	Begin
	// Resume: the generation that Halt ended runs again.
	Resume
	// Halt: the generation ends, and no more workers are spawned.
	Halt
	// Spawned: the spawn that the last Plan requested succeeded. The ordinal of
	// the worker is Step.Ordinal.
	Spawned
	// SpawnFailed: the spawn failed.
	SpawnFailed
	// Ready: worker ID is ready.
	Ready
	// Parked: worker ID, a standby, waits for a slot.
	Parked
	// Disconnected: worker ID has closed its control socket.
	Disconnected
	// Exited: worker ID was reaped.
	Exited
	// Signal: Sig goes to every worker at once.
	Signal
	// SignalOne: Sig goes to worker ID.
	SignalOne
	// Forward: Sig goes to one worker now and to one more each Interval.
	Forward
	// Roll: the next generation replaces the workers, each when its replacement
	// is ready. Sig stops the replaced ones.
	Roll
	// KillAll: every worker is killed.
	KillAll
	// Resize: Config.Max becomes N.
	Resize
	// HoldSlot: slot N gets no worker from now on. One that it has keeps it.
	HoldSlot
	// ReleaseSlot: slot N is neither held nor done any more, and has no delay.
	ReleaseSlot
	// UnholdSlot: slot N is not held any more. It keeps its delay.
	UnholdSlot
	// Busy: worker ID is busy.
	Busy
	// Idle: worker ID is no longer busy.
	Idle
	// Surveyed: Busy and Idle events have been applied for all workers.
	Surveyed
	// Recycle: worker ID must be replaced.
	Recycle
	// Stuck: worker ID has been busy for too long.
	Stuck
	// Exiting: worker ID is about to exit.
	Exiting
	// GroupGone: the process group of worker ID, which was reaped, is empty.
	GroupGone
	// Executed: worker ID, which began with a first step, is now the command.
	Executed
)

// Event is something that happened. Its Kind determines the other fields that
// it uses.
type Event struct {
	Kind Kind
	ID   int // the ordinal of the worker, for each kind that concerns one
	N    int // Resize, HoldSlot, ReleaseSlot, UnholdSlot

	Fresh bool // Begin: slots that are done get workers again

	Command bool // Spawned: the worker is a program that does not know the manager
	Step    bool // Spawned: a first step executes the command; Executed follows
	Ready   bool // Spawned, Executed: the worker is ready at once

	Shortage bool // SpawnFailed: the system lacks memory, processes or descriptors

	Busy bool // SpawnFailed: the program's file is open for writing

	Clean     bool // Exited: with exit code 0
	Killed    bool // Exited: by SIGKILL
	OOMKilled bool // Exited: by the OOM killer
	NoGrace   bool // Exited: by the stop signal, and it had not called Context
	Stray     bool // Exited: by a signal that workers ignore once they can
	Leftover  bool // Exited: its process group is not empty; needs Config.Group
	Alive     bool // Disconnected: the worker is known to keep running

	// Frozen is for how long the system was frozen since the last event of any
	// kind. It does not count for deadlines.
	Frozen time.Duration

	Sig       syscall.Signal // Signal, SignalOne, Forward, Roll
	Immediate bool           // Signal, SignalOne, Forward: also to workers that are not ready
	Interval  time.Duration  // Forward
	Again     bool           // Forward: also to workers that are stopping already
	// Linger is for Roll: for how long a ready replacement waits.
	Linger time.Duration
	// Received is the signal that the manager received, for Forward. A later
	// Forward for the same signal supersedes this one.
	Received syscall.Signal

	// ReadUpTo is set for Tick. All messages that workers sent before this time
	// have been applied.
	ReadUpTo Time
}

// EffectKind is the kind of an Effect.
type EffectKind uint8

const (
	// Send: Sig goes to worker ID, or to the leftover processes of its group.
	Send EffectKind = iota + 1
	// Change: worker ID changed from From to To. A standby that changes to
	// StateStarting gets Slot.
	Change
	// Delay: the slot of worker ID, which ended, is not spawned for For.
	Delay
	// Rolled: all workers are of generation Gen or later. Those of earlier
	// generations are stopping.
	Rolled
	// RollFailed: generation Gen failed, and generation Kept is kept. Worker ID
	// caused the failure, or a spawn if ID is 0.
	RollFailed
	// CrashLooped: Failures have happened within For while no worker was ready.
	// The manager should shut down.
	CrashLooped
	// CheckGroup: the caller must check the process group of worker ID, and
	// apply GroupGone if it is empty.
	CheckGroup
	// Leftover: the leftover processes of worker ID changed from From to To:
	// they are stopping, killed or gone. Killed and gone ones are forgotten.
	Leftover
	// RetryDelay: after SpawnFailed, no worker is spawned for For, or none for the
	// slot if the program's file is busy. Each SpawnFailed event has exactly one
	// such effect.
	RetryDelay
	// EndsAtOnce: worker ID, a command, is the third in a row in its slot to exit
	// with code 0 after a young life. It may have put itself into the background.
	EndsAtOnce
	// WorkCut: the stop signal ended worker ID at its work, since the worker had
	// not called Context. A worker that was ready for a short time does not count:
	// it may not have reached the call.
	WorkCut
	// Hold: Slot is held, or no longer held or done.
	Hold
	// Done: worker ID has ended, and Slot is done.
	Done
)

// Effect is one thing to do or to report.
type Effect struct {
	Kind     EffectKind
	ID       int
	Slot     int
	Sig      syscall.Signal
	Group    bool // Send: to the worker's process group
	From, To State
	Reason   Reason        // Change to StateKilled or StateGone; RollFailed
	For      time.Duration // Delay, RetryDelay, CrashLooped
	Failures int           // CrashLooped
	Gen      int           // Rolled, RollFailed
	Kept     int           // RollFailed
	Held     bool          // Hold
	Repeated bool          // RetryDelay: one for the same busy file came before
}

// Step is the next step of the caller.
type Step struct {
	// SpawnDue requests the spawn of a worker of generation Gen, for Slot or,
	// if Slot is -1, as a standby. The caller applies Spawned or SpawnFailed
	// next. A request that is not answered by the next event lapses and is
	// repeated by a later Plan.
	SpawnDue bool
	Slot     int
	Gen      int
	Ordinal  int // of the next worker to be spawned

	// Wake is when the caller should apply the next Tick, or Never.
	Wake Time

	// Survey requests a Surveyed event, because an idle worker will be stopped.
	// The caller should first apply Busy and Idle events for all workers.
	Survey bool
}

// Sooner returns the earlier of two times, each of which may be Never.
func Sooner(a, b Time) Time {
	if a == Never || b != Never && b < a {
		return b
	}
	return a
}
