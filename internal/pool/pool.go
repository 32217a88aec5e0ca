// Package pool is the policy of a manager: which slot gets a worker and when, who is signalled, who is killed.
//
// It is pure: no process, no descriptor, no clock of its own. Everything that happens is an Event, given to Handle with
// the time at which it happens; what is to be done is the Step that Handle returns. So a pause of 30 s is tested in no
// time, and a fuzzer can feed it any sequence of events and check what must hold after each (pool_fuzz_test.go):
//
//   - in a slot there is at most one worker that has not been told to stop, and at most one replacement of it;
//   - workers starting or ready are never more than Max, while workers are being replaced than Max plus Surge;
//   - a replacement takes no ready worker away before it is ready itself;
//   - nothing is sent to a worker that is gone, and a worker's state only ever moves towards gone;
//   - a worker is spawned only while a generation runs, and not before its slot's pace allows;
//   - a standby takes an empty slot and no other, and none outlives its generation but to stop;
//   - told to stop, all workers are gone or killed when StopTimeout has passed;
//   - so is what is left of a worker's process group, which is told to stop, with the worker or after it.
//
// An event costs at most the logarithm of the number of slots, save those that speak to every worker.
package pool

import (
	"syscall"
	"time"
)

// Time is a moment on the pool's own monotonic scale: what has passed since an origin that the caller chose. The wall
// clock has no part in it, so that setting it changes nothing (defect D13 of Parallel::Prefork).
type Time = time.Duration

// Never is the time of what will not happen.
const Never Time = -1

// lostGrace is how long a worker may live after it let go of its control socket before it was ready.
const lostGrace = 100 * time.Millisecond

// State of a worker. A worker only ever moves on to a later state, save that a standby which is given a slot starts there.
type State uint8

const (
	None     State = iota // not spawned yet
	Starting              // its process runs, and is not ready
	Standby               // started ahead, parked without a slot
	Ready                 // at work
	Stopping              // told to stop
	Killed                // sent SIGKILL
	Gone                  // reaped
)

// Reason is why a worker ended, as far as the policy knows.
type Reason uint8

const (
	Finished    Reason = iota + 1 // ended by itself, cleanly
	Crashed                       // ended by itself, badly
	Stopped                       // was told to stop, and did
	Retired                       // was recycled
	Overdue                       // was told to stop, did not, and was killed
	Stuck                         // was busy without a beat for too long
	NeverReady                    // was not ready in time
	OutOfMemory                   // was killed by the kernel for memory
)

// Config is what a Pool is made from; all fields are set (defaults are the caller's business).
type Config struct {
	Max           int
	Surge         int // replacements that may be starting beside Max workers
	Standby       int // workers that are started ahead
	SpawnInterval time.Duration
	ErrRespawn    time.Duration  // negative: no pacing
	StopTimeout   time.Duration  // negative: never
	ReadyTimeout  time.Duration  // 0 or negative: never
	Stop          syscall.Signal // the stop signal
	Continue      syscall.Signal // follows each stop signal, so that a suspended worker hears it; 0 for none
	Dump          syscall.Signal // has a worker that is stuck say where; follows nothing
	MinSpare      int            // > 0: sizing by load, at least so many idle workers …
	MaxSpare      int            // … and at most so many
	Lifetime      time.Duration  // a worker retires at this age; 0: never
	CrashLoop     int            // so many failures within CrashWindow, and no worker ready: Surrender; 0: never
	CrashWindow   time.Duration
	Group         bool           // to be told to stop and to be killed is for a worker's whole process group
	Jitter        func() float64 // from [0, 1)
}

// Kind of an Event.
type Kind uint8

const (
	Tick        Kind = iota // nothing but time has passed
	Begin                   // a generation begins: missing workers are spawned
	Resume                  // the generation that a Halt ended goes on
	Halt                    // the generation ends: nothing is spawned any more
	Spawned                 // the spawn that the last Step asked for succeeded; its worker is ID
	SpawnFailed             // it failed
	Reached                 // worker ID is ready
	Parked                  // worker ID, a standby, has reached Start
	Lost                    // worker ID let go of its control socket
	Exited                  // worker ID was reaped
	Signal                  // Sig goes to every worker
	Forward                 // as Signal, but to one worker now and to one more each Interval
	Roll                    // the next generation to begin replaces the workers there are, each when its replacement is ready; they are told by Sig
	KillAll                 // every worker is killed at once
	Resize                  // Max becomes N
	Busy                    // worker ID is busy …
	Idle                    // … or no longer
	Surveyed                // Busy and Idle have told of all workers just now
	Retire                  // worker ID is to be replaced
	Jam                     // worker ID is stuck
	Yield                   // worker ID is about to end
	Emptied                 // nothing is left any more of the process group of worker ID, which is gone
)

// Event is something that happened. Only the fields that its Kind names are used.
type Event struct {
	Kind     Kind
	ID       int            // Reached, Parked, Lost, Exited, Busy, Idle, Retire, Jam, Yield, Emptied: the worker's ordinal
	N        int            // Resize
	Ready    bool           // Spawned: the worker is ready at once (a command, which knows nothing of Start)
	Clean    bool           // Exited: exit code 0
	Killed   bool           // Exited: by SIGKILL
	Memory   bool           // Exited: it was the kernel that killed it, for want of memory
	Rest     bool           // Exited: something is left of its process group (only with Config.Group)
	Sig      syscall.Signal // Signal, Forward, Roll
	Lives    bool           // Lost: the worker is known not to be about to end
	Now      bool           // Signal, Forward: also to a worker that is starting (SIGKILL, SIGSTOP, SIGCONT cannot be caught anyway)
	Interval time.Duration  // Forward
	For      syscall.Signal // Forward: the signal that was received; a new one for the same takes the old one's place
	Again    bool           // Forward: also to workers that have been told to stop
	Heard    Time           // Tick: what the workers had said by then has been told
}

// EffectKind says what an Effect does.
type EffectKind uint8

const (
	Send      EffectKind = iota + 1 // send Sig to worker ID, or what is left of its process group
	Change                          // worker ID went from From to To; from Standby to Starting: it is given Slot
	Delay                           // the slot of a worker that ended waits for For before its next spawn
	Rolled                          // all workers are of generation Gen or a later one: those before it have been told to stop
	GaveUp                          // generation Gen is given up, Back goes on: worker ID failed, or a spawn did where that is 0
	Surrender                       // the workers crash and crash: the manager is to end
	Look                            // see whether anything is left of the process group of worker ID, and if not, say Emptied
	Rest                            // what is left of that is told to stop (To: Stopping), with its worker or now; or gone, or killed, and not heard of again
)

// Effect is one thing to be done, or to be told.
type Effect struct {
	Kind     EffectKind
	ID       int
	Slot     int
	Sig      syscall.Signal
	Group    bool // Send: to its whole process group
	From, To State
	Reason   Reason        // Change to Killed or Gone
	For      time.Duration // Delay
	Gen      int           // Rolled, GaveUp
	Back     int           // GaveUp
}

// Step is the answer to an Event. Effects are to be applied in order and are valid until the next call of Handle.
// With Ask, a worker of generation Gen should be spawned now, for slot Spawn or, where that is -1, as a standby; the caller
// spawns and answers Spawned or SpawnFailed, or leaves it and is asked again; likewise with Survey. Wake is when Handle wants to be called next if nothing happens, or Never.
type Step struct {
	Effects []Effect
	Ask     bool
	Spawn   int
	Gen     int // of the worker to be spawned
	Ordinal int
	Wake    Time
	Survey  bool          // who is idle is to be told anew, with Surveyed: one of them is to be stopped
	Retry   time.Duration // after SpawnFailed: no spawn is asked for before this has passed
}

// Pool is the state of the workers of one manager. It is not safe for concurrent use.
type Pool struct {
	cfg     Config
	max     int
	gen     int // the newest
	good    int // what empty slots get while nothing is being replaced
	running bool
	ordinal int // of the last worker spawned
	roll    roll

	slots   []*slot // by index; never shrinks, so that a slot remembers its pace
	workers map[int]*worker
	oldest  *worker // the workers in order of their spawn
	newest  *worker

	vacant      slotHeap // empty slots below max that SpawnInterval holds back, by due time
	urgent      slotHeap // those that it does not: after an abnormal end
	rolls       slotHeap // those whose worker is to be replaced, and has no replacement yet
	deadlines   workerHeap
	schedules   []schedule
	size        size
	ages        ageHeap
	crashes     []Time // the last failures, as many as CrashLoop
	surrendered bool   // in this generation
	standby     standby
	rests       restHeap
	left        map[int]*rest // the same by ordinal

	lastPaced   Time // the last spawn from vacant, from which SpawnInterval counts; Never before the first
	failures    int  // spawns in a row that failed
	failedAt    Time // the last of them
	failedUntil Time

	asked    *slot // for which the last Step asked for a spawn
	askedGen int
	out      []Effect
}

type slot struct {
	index     int
	worker    *worker // who holds it, also when told to stop; not one that a replacement has taken over from
	next      *worker // the replacement, until it is ready
	due       Time    // no spawn before
	spawnedAt Time
	bad       int // young abnormal ends that count towards the next delay
	clean     int // young clean ends in a row
	delay     time.Duration
	heap      *slotHeap // in which it waits, nil if in none
	at        int       // where in it
}

type worker struct {
	id, gen    int
	slot       *slot
	state      State
	spawnedAt  Time
	ahead      time.Duration // that it has stood by
	reached    bool
	lost       bool
	probe      bool // starting, and of the generation that a roll brings
	holds      bool // it is counted in roll.holds
	busy       bool
	retiring   bool // it is to be replaced …
	retired    bool // … and was, for that alone
	stuck      bool
	yielded    bool   // about to end, it has left its slot to a standby, and is not counted any more
	killed     Reason // why, once it is in state Killed
	held       []syscall.Signal
	deadline   Time
	at         int // in deadlines, -1 if in none
	retireAt   Time
	ageAt      int // in ages, -1 if not there
	idleAt     int // in size.idle, -1 if not there
	prev, next *worker
}

// New makes a pool in which no generation runs yet.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg, workers: make(map[int]*worker), left: make(map[int]*rest), lastPaced: Never, standby: newStandby(cfg.Standby)}
	for _, place := range p.standby.places {
		p.wait(place, false)
	}
	p.resize(0, cfg.Max)
	return p
}

// Max is the target number of workers.
func (p *Pool) Max() int { return p.max }

// Len is the number of workers that are not gone, without standbys.
func (p *Pool) Len() int { return len(p.workers) - p.standby.alive }

// Full tells whether all workers are ready that there should be: Max, or with sizing by load as many as it wants now.
// While no generation runs it is not told, and a worker that failed is missing until it is reaped.
func (p *Pool) Full() bool {
	for w := p.oldest; w != nil; w = w.next {
		if w.state == Killed {
			return false
		}
	}
	return p.running && (p.size.ready >= p.max || !p.wants() && p.size.ready == p.size.alive)
}

// Overdue tells whether a Tick would find that somebody's time is over.
func (p *Pool) Overdue(now Time) bool { return len(p.deadlines) > 0 && p.deadlines[0].deadline <= now }

// Generation is the number of Begin events so far.
func (p *Pool) Generation() int { return p.gen }

// Good is the generation that goes on if the newest fails: the newest itself, unless it is replacing the workers now.
func (p *Pool) Good() int { return p.good }

// Handle takes in what happened at now. It is called in order of time.
func (p *Pool) Handle(now Time, ev Event) Step {
	p.out = p.out[:0]
	switch ev.Kind {
	case Tick:
	case Begin:
		p.begin(now)
	case Resume:
		p.running = p.gen > 0
	case Halt:
		p.running = false
		p.dismissStandbys(now)
	case Spawned:
		p.spawned(now, ev)
	case SpawnFailed:
		p.spawnFailed(now)
	case Reached:
		if w := p.workers[ev.ID]; w != nil {
			p.reached(now, w)
		}
	case Parked:
		if w := p.workers[ev.ID]; w != nil {
			p.park(w)
		}
	case Lost:
		if w := p.workers[ev.ID]; w != nil {
			p.lose(now, w, ev.Lives)
		}
	case Exited:
		if w := p.workers[ev.ID]; w != nil {
			state, deadline := w.state, w.due()
			p.exited(now, w, ev)
			if ev.Rest {
				p.leave(now, w, state, deadline)
			}
		}
	case Signal:
		for w := p.oldest; w != nil; w = w.next {
			p.signal(now, w, ev.Sig, ev.Now)
		}
		p.roll.gaveUp = p.roll.gaveUp && ev.Sig != p.cfg.Stop // whoever stops all has the next generation come, whatever it is
	case Forward:
		p.schedule(now, ev)
		p.roll.gaveUp = p.roll.gaveUp && ev.Sig != p.cfg.Stop // as above
	case KillAll:
		for w := p.oldest; w != nil; w = w.next {
			p.kill(w, Overdue)
		}
	case Busy, Idle:
		if w := p.workers[ev.ID]; w != nil {
			p.status(w, ev.Kind == Busy)
		}
	case Retire:
		if w := p.workers[ev.ID]; w != nil {
			p.retire(w)
		}
	case Jam:
		if w := p.workers[ev.ID]; w != nil {
			p.stuck(now, w)
		}
	case Yield:
		if w := p.workers[ev.ID]; w != nil {
			p.yield(now, w)
		}
	case Surveyed:
		p.shrink(now)
	case Emptied:
		if r := p.left[ev.ID]; r != nil {
			p.endRest(r, Gone)
		}
	case Roll:
		p.roll.marked, p.roll.sig = true, ev.Sig
	case Resize:
		p.resize(now, ev.N)
	}
	if ev.Kind == KillAll || ev.Sig == syscall.SIGKILL && (ev.Kind == Signal || ev.Kind == Forward) {
		p.killRests() // they serve nobody, so that there is nothing to stagger
	}
	p.runSchedules(now)
	p.runDeadlines(now, ev.Heard)
	p.runAges(now)
	p.runRests(now)
	p.endRoll(now)
	return p.step(now, p.fillDue(now))
}

func (p *Pool) step(now, wake Time) Step {
	s := Step{Ordinal: p.ordinal + 1, Wake: wake}
	p.asked = nil
	if at, slot := p.nextSpawn(now); slot != nil {
		if at <= now {
			p.asked, p.askedGen = slot, p.genFor(slot)
			s.Ask, s.Spawn, s.Gen = true, slot.index, p.askedGen
		} else {
			s.Wake = Sooner(s.Wake, at)
		}
	}
	if len(p.deadlines) > 0 {
		s.Wake = Sooner(s.Wake, p.deadlines[0].deadline)
	}
	if len(p.ages) > 0 {
		s.Wake = Sooner(s.Wake, p.ages[0].retireAt)
	}
	s.Wake = Sooner(s.Wake, p.settlesAt())
	if at := p.shrinkAt(); at != Never && at <= now {
		s.Survey = true
	} else {
		s.Wake = Sooner(s.Wake, at)
	}
	if len(p.rests) > 0 {
		s.Wake = Sooner(s.Wake, p.rests[0].due())
	}
	for i := range p.schedules {
		if len(p.schedules[i].left) > 0 {
			s.Wake = Sooner(s.Wake, p.schedules[i].next)
		}
	}
	s.Effects, s.Retry = p.out, max(0, p.failedUntil-now)
	return s
}
