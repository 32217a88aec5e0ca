//go:build unix

package pool

import (
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"
)

// sim plays the loop of a manager. It applies events to a Pool, carries out the
// effects on simulated workers, follows Wake, and checks the invariants after
// every step (check_test.go).
type sim struct {
	t       testing.TB
	p       *Pool
	cfg     Config
	now     Time
	max     int
	gen     int
	running bool

	workers map[int]*simWorker // by ordinal, without those that are gone
	gone    map[int]Reason
	held    map[int]bool
	slots   map[int]*simSlot
	spawns  []simSpawn // all that succeeded, in order
	failed  []Time     // when spawns failed
	effects []Effect   // of the last do or pass

	command  bool // workers are commands, ready as soon as they are spawned
	late     bool // they are not
	failing  int  // how many of the next spawns fail
	shortage bool // as they do for want of memory
	busy     bool // as they do while the file is written
	skipping bool // the next requested spawn is not answered
	skipped  bool // the last one was not

	wake          Time // of the last step
	asked         int  // the slot of its spawn request
	askedGen      int
	spawnFailures int // in a row
	failedUntil   Time
	lastPaced     Time // the last spawn that SpawnInterval counts from
	killForwarded bool // a staggered SIGKILL is under way

	// replacing is set when workers are replaced, sized dynamically or started
	// in advance. The model of the pacing does not cover these.
	replacing   bool
	lastSurplus Time // when dynamic sizing last stopped a worker, or Never
	rolled      int  // rolls that have completed
	rollsFailed int
	crashLoops  int
	ended       int           // EndsAtOnce effects
	worked      bool          // a worker was ready for longer than a second
	failures    []Time        // since the last Begin; a failed spawn may be one for each slot
	looped      bool          // since the last Begin
	lastFailed  bool          // the last event was a failure
	endsAtOnce  bool          // the last event was the third young clean end of a command
	busyDelay   time.Duration // after the last failed spawn, 0 if it was not busy

	keepGroups  bool // the groups of workers that exit from now on are not empty
	leftovers   map[int]*simLeftover
	lastEnded   *simWorker // as it was before it exited
	emptyGroups []int      // found by CheckGroup
}

type simWorker struct {
	id, slot, gen  int
	command        bool
	state          State
	ready          bool
	readyAt        Time
	spawnedAt      Time
	got            []syscall.Signal
	held           []syscall.Signal // signals to all workers before it was ready
	stoppedAt      Time             // when it got its first stop signal, or Never
	disconnectedAt Time             // or Never
	stuckAt        Time             // or Never
	exiting        bool             // another worker has its slot
	why            Reason           // once it is killed
}

type simSpawn struct {
	at       Time
	slot, id int
}

// outcome is the result of one event.
type outcome struct {
	Step
	effects []Effect
}

// newSim returns a sim of a Pool with the stop signal SIGTERM and, by default,
// no jitter.
func newSim(t testing.TB, cfg Config) *sim {
	if cfg.Jitter == nil {
		cfg.Jitter = func() float64 { return 0 }
	}
	cfg.Stop = syscall.SIGTERM
	s := &sim{
		t: t, p: New(cfg), cfg: cfg, max: cfg.Max, wake: Never, lastPaced: Never, lastSurplus: Never,
		workers: map[int]*simWorker{}, gone: map[int]Reason{}, held: map[int]bool{}, slots: map[int]*simSlot{}, leftovers: map[int]*simLeftover{},
	}
	s.replacing = cfg.MinSpare > 0 || cfg.Lifetime > 0 || cfg.Standby > 0
	for i := noSlot; i < cfg.Max; i++ {
		s.slots[i] = &simSlot{}
	}
	return s
}

// begun returns a sim whose first generation has begun. The workers that could
// be spawned at once are ready.
func begun(t testing.TB, cfg Config) *sim {
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.readyAll()
	return s
}

// do applies one event, answers each spawn request, and returns all effects.
func (s *sim) do(ev Event) []Effect {
	s.t.Helper()
	s.effects = nil
	s.settle(s.step(ev))
	return s.effects
}

// settle answers requests until there are none.
func (s *sim) settle(o outcome) {
	s.t.Helper()
	for n := 0; o.SpawnDue; n++ {
		if n > 2*(s.max+s.cfg.Surge)+1 {
			s.t.Fatalf("%v: more than %d spawn requests at one time", s.now, n)
		}
		s.checkSpawn(o.Step)
		if s.skipping {
			s.skipping, s.skipped = false, true
			return
		}
		o = s.step(s.answer())
	}
	s.skipped = false
	if o.Survey {
		s.settle(s.step(Event{Kind: Surveyed}))
		return
	}
	s.checkWake()
	if len(s.emptyGroups) > 0 {
		id := s.emptyGroups[0]
		s.emptyGroups = s.emptyGroups[1:]
		s.settle(s.step(Event{Kind: GroupGone, ID: id}))
	}
}

// answer returns the event that answers a spawn request.
func (s *sim) answer() Event {
	if s.failing > 0 {
		s.failing--
		return Event{Kind: SpawnFailed, Shortage: s.shortage, Busy: s.busy && !s.replacing}
	}
	return Event{Kind: Spawned, Command: s.command, Ready: s.command && !s.late}
}

// step applies one event and carries out the effects.
func (s *sim) step(ev Event) outcome {
	s.t.Helper()
	early := ev.Kind == Tick && !s.skipped && (s.wake == Never || s.now < s.wake)
	asked, gen := s.asked, s.askedGen
	s.note(ev)
	if ev.Kind == Tick {
		ev.ReadUpTo = s.now
	}
	o := outcome{effects: s.p.Apply(s.now, ev), Step: s.p.Plan(s.now)}
	if again := s.p.Plan(s.now); again != o.Step {
		s.t.Fatalf("%v: the second Plan is %+v, the first was %+v", s.now, again, o.Step)
	}
	if early && (len(o.effects) > 0 || o.SpawnDue) {
		s.t.Fatalf("%v: something was due before Wake at %v: %+v", s.now, s.wake, o)
	}
	if ev.Kind == Spawned {
		s.spawned(asked, gen, ev.Command)
	}
	s.wake, s.asked, s.askedGen = o.Wake, o.Slot, o.Gen
	s.effects = append(s.effects, o.effects...)
	for i, e := range o.effects {
		s.apply(ev, i, o.effects)
		if e.Kind == Delay && e.For <= 0 {
			s.t.Fatalf("%v: a delay of %v", s.now, e.For)
		}
	}
	s.check(ev, o.effects)
	s.checkSettled()
	s.checkCrashLoop(ev, o.effects)
	return o
}

// pass lets d pass, waking up exactly at each Wake.
func (s *sim) pass(d time.Duration) []Effect {
	s.t.Helper()
	s.effects = nil
	end := s.now + d
	for n := 0; s.wake != Never && s.wake <= end; n++ {
		if n > 100_000 {
			s.t.Fatalf("%v: the loop spins", s.now)
		}
		s.now = max(s.now, s.wake)
		s.settle(s.step(Event{Kind: Tick}))
	}
	s.now = end
	s.settle(s.step(Event{Kind: Tick}))
	return s.effects
}

// until lets the time pass up to t.
func (s *sim) until(t Time) []Effect {
	s.t.Helper()
	if t < s.now {
		s.t.Fatalf("until %v, but it is %v", t, s.now)
	}
	return s.pass(t - s.now)
}

// exit ends one worker.
func (s *sim) exit(id int, ev Event) []Effect {
	s.t.Helper()
	ev.Kind, ev.ID, ev.Leftover = Exited, id, s.keepGroups && s.cfg.Group
	return s.do(ev)
}

func (s *sim) crash(id int) []Effect    { s.t.Helper(); return s.exit(id, Event{}) }
func (s *sim) exitZero(id int) []Effect { s.t.Helper(); return s.exit(id, Event{Clean: true}) }

// exitStopped ends all workers that are stopping or were killed.
func (s *sim) exitStopped() {
	s.t.Helper()
	for _, id := range s.ids() {
		switch w := s.workers[id]; w.state {
		case StateStopping:
			s.exit(id, Event{Clean: true})
		case StateKilled:
			s.exit(id, Event{Killed: true})
		}
	}
}

// ready lets a worker become ready.
func (s *sim) ready(id int) []Effect { s.t.Helper(); return s.do(Event{Kind: Ready, ID: id}) }

// readyAll lets every worker become ready, and every standby park.
func (s *sim) readyAll() {
	s.t.Helper()
	for _, id := range s.ids() {
		kind := Ready
		if s.workers[id].slot == noSlot {
			kind = Parked
		}
		s.do(Event{Kind: kind, ID: id})
	}
}

// ids returns the workers that are not gone, in the order of their spawns.
func (s *sim) ids() []int { return slices.Sorted(maps.Keys(s.workers)) }

// in returns the worker in a slot, or nil.
func (s *sim) in(slot int) *simWorker {
	for _, w := range s.workers {
		if w.slot == slot {
			return w
		}
	}
	return nil
}

// count returns the number of workers that are in one of the states.
func (s *sim) count(states ...State) int {
	n := 0
	for _, w := range s.workers {
		if slices.Contains(states, w.state) {
			n++
		}
	}
	return n
}

// sent returns the workers that were sent sig during the last do or pass, in
// order.
func (s *sim) sent(sig syscall.Signal) []int {
	ids := []int{}
	for _, e := range s.effects {
		if e.Kind == Send && e.Sig == sig {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// spawnTimes returns when a slot got its workers.
func (s *sim) spawnTimes(slot int) []Time {
	var at []Time
	for _, sp := range s.spawns {
		if sp.slot == slot {
			at = append(at, sp.at)
		}
	}
	return at
}

const (
	ms  = time.Millisecond
	sec = time.Second
)

func secs(s ...float64) []Time {
	ts := make([]Time, len(s))
	for i, x := range s {
		ts[i] = time.Duration(x * float64(sec)).Round(time.Microsecond)
	}
	return ts
}
