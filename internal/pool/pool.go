// Package pool is the policy of a manager. It decides which slot gets a worker
// and when, and which workers are signalled or killed.
//
// The policy is pure: it has no processes, no descriptors and no clock. The
// caller passes everything that happens to [Pool.Apply] and carries out the
// effects that it returns. [Pool.Plan] returns the next step: a spawn, or a
// time to wait for. A test therefore plays a pause of 30 s in no time, and a
// fuzzer can apply any sequence of events and check these invariants after each
// one:
//
//   - A slot holds at most one worker that is not stopping, and at most one
//     replacement for it.
//   - Starting and ready workers are never more than Max, or Max plus Surge
//     while workers are being replaced.
//   - A ready worker is stopped for its replacement only when that is ready.
//   - In a roll, at most Surge workers of the new generation start before one
//     of them was ready.
//   - A worker that is gone gets no signal, and a worker's state only moves
//     towards gone.
//   - A worker is spawned only while a generation runs, and not before the
//     delay of its slot has passed.
//   - A slot that is held or done gets no worker while it is empty.
//   - A standby takes only an empty slot, and every standby stops with its
//     generation.
//   - A stopping worker is gone or killed after StopTimeout.
//   - The same is true of the leftover processes of a worker's group. They get
//     the stop signal with the worker or after it.
//
// An event costs at most the logarithm of the number of slots, except for an
// event that concerns every worker.
package pool

import (
	"syscall"
	"time"
)

// Config configures a Pool. The caller must set all fields: there are no
// defaults.
type Config struct {
	Max           int
	Surge         int // replacements that may start beside Max workers
	Standby       int // workers that are spawned in advance
	SpawnInterval time.Duration
	ErrRespawn    time.Duration  // negative means no backoff
	Backoff       List           // replaces the delays of slots by ErrRespawn; nil: none
	StopTimeout   time.Duration  // negative means never
	ReadyTimeout  time.Duration  // zero or negative means never
	ReadyAfter    time.Duration  // a command of this age is ready; needs Standby 0; zero means none
	Stop          syscall.Signal // the stop signal
	Continue      syscall.Signal // follows each stop signal, for suspended workers; zero means none
	Dump          syscall.Signal // makes a stuck worker dump its stacks
	MinSpare      int            // enables dynamic sizing; at least this many idle workers
	MaxSpare      int            // at most this many idle workers
	Lifetime      time.Duration  // a worker is recycled at this age; zero means never
	CrashLoop     int            // failures in CrashWindow that are a crash loop; zero means never
	CrashWindow   time.Duration
	UnprovenLoop  int  // failures of each slot before a worker has worked; zero: never
	Group         bool // stop signals and SIGKILL go to a worker's process group
	Restart       Restart
	Jitter        func() float64 // returns a number in [0, 1)
}

// Pool is the state of the workers of one manager. It is not safe for
// concurrent use.
type Pool struct {
	cfg         Config
	max         int
	gen         int // the newest
	fallbackGen int // for empty slots while no roll is in progress
	running     bool
	ordinal     int // of the last worker spawned
	roll        roll

	slots       []*slot // by index; never shrinks, so that a slot keeps its delay; see addSlot
	closed      closed
	unusedSince Time // when the slots after these were added

	workers map[int]*worker
	oldest  *worker // the workers in order of their spawn
	newest  *worker

	vacant       heap[*slot] // empty slots below max that SpawnInterval holds back
	urgent       heap[*slot] // empty slots after an abnormal end, which it does not
	toReplace    heap[*slot] // slots whose worker must be replaced and has no replacement yet
	deadlines    heap[*worker]
	ages         heap[*worker]
	schedules    []schedule
	size         size
	failureTimes []Time // the last failures, at most as many as are a crash loop
	firstFailure Time   // in this generation, or Never
	crashLooped  bool   // in this generation
	proven       bool   // a worker of any generation was ready for longer than provenLife
	standby      standby
	leftovers    heap[*leftover]
	leftoverOf   map[int]*leftover // by ordinal

	lastPaced     Time // the last spawn that SpawnInterval counts from, or Never
	spawnFailures int  // failed spawns in a row
	failedAt      Time // the last of them
	failedUntil   Time

	asked    *slot // the slot of the spawn that Plan has requested
	askedGen int
	effects  []Effect
}

type slot struct {
	index       int
	used        bool    // a spawn was tried, or it got a standby
	worker      *worker // also one that is stopping, unless its replacement has taken over
	replacement *worker // until it is ready, and has lingered
	due         Time    // no spawn before
	spawnedAt   Time
	spawns      int // workers that it has had
	crashes     int // workers in a row that ended abnormally, since the last Begin
	badEnds     int // young abnormal ends that count towards the next delay
	cleanEnds   int // young clean ends in a row
	strays      int // workers in a row that a stray signal ended before they were ready
	delay       time.Duration
	busyTries   int          // spawns in a row that have met a busy program file
	busySince   Time         // the first of them
	done        bool         // it stays empty by Config.Restart
	closed      bool         // counted in Pool.closed.empty
	doneCounted bool         // counted in Pool.closed.done
	queue       *heap[*slot] // nil if it is in none
	place       int          // in queue
}

type worker struct {
	id, gen      int
	slot         *slot
	state        State
	spawnedAt    Time
	standbyTime  time.Duration // between its spawn and its slot
	command      bool          // another program, which takes signals from its start on
	step         bool          // the first step of a command
	ready        bool          // it has reported ready
	readyAt      Time          // in StateReady, or Never if it was stopping by then
	disconnected bool
	probe        bool // it is starting, of the generation that a roll brings
	rolled       bool // it is counted in roll.rolled
	busy         bool
	recycling    bool // its replacement will stop it
	recycled     bool // its replacement has stopped it
	stuck        bool
	exiting      bool   // a standby has its slot, and it is no longer counted
	killReason   Reason // once it is killed
	held         []syscall.Signal
	deadline     Time
	recycleAt    Time
	lingersUntil Time // in roll.lingering
	prev, next   *worker

	deadlinePlace, agePlace, idlePlace int // in heaps
}

// New returns a Pool in which no generation runs yet.
func New(cfg Config) *Pool {
	p := &Pool{
		cfg:        cfg,
		workers:    make(map[int]*worker),
		vacant:     newSlotHeap(),
		urgent:     newSlotHeap(),
		toReplace:  newSlotHeap(),
		deadlines:  newDeadlineHeap(),
		ages:       newAgeHeap(),
		size:       size{idle: newIdleHeap()},
		standby:    standby{waiting: newSlotHeap()},
		leftovers:  newLeftoverHeap(),
		leftoverOf: make(map[int]*leftover),
		closed:     closed{held: make(map[int]bool)},
		lastPaced:  Never,

		firstFailure: Never,
	}
	p.addPlace()
	p.resize(0, cfg.Max)
	return p
}

// Max returns the target number of workers.
func (p *Pool) Max() int { return p.max }

// Len returns the number of workers that are not gone, without standbys.
func (p *Pool) Len() int { return len(p.workers) - p.standby.alive }

// Serving returns the number of workers that are neither stopping nor about to
// exit, without standbys.
func (p *Pool) Serving() int { return p.size.alive }

// Standbys returns the number of standbys that are not gone.
func (p *Pool) Standbys() int { return p.standby.alive }

// Leftovers returns the number of process groups that have outlived their
// worker and are neither gone nor killed.
func (p *Pool) Leftovers() int { return p.leftovers.len() }

// Generation returns the number of Begin events so far.
func (p *Pool) Generation() int { return p.gen }

// Fallback returns the generation that is kept if the newest fails. It is the
// newest itself unless that is replacing the workers.
func (p *Pool) Fallback() int { return p.fallbackGen }

// Full reports whether a generation runs and all its workers are ready: one in
// each slot of Max that is not held or done, or as many as dynamic sizing wants
// now. A worker that was killed counts as missing until it is reaped.
func (p *Pool) Full() bool {
	for w := p.oldest; w != nil; w = w.next {
		if w.state == StateKilled {
			return false
		}
	}
	return p.running && (p.size.ready+p.closed.empty >= p.max || !p.wantsWorkers() && p.size.ready == p.size.alive)
}

// Overdue reports whether the deadline of a worker has passed. The caller
// should then read all pending messages before the next Tick.
func (p *Pool) Overdue(now Time) bool {
	return p.deadlines.len() > 0 && p.deadlines.first().deadline <= now
}
