//go:build unix

package pool

import (
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"
)

// sim plays the loop of a manager: it hands events to a Pool, applies what the Pool answers to workers that exist only
// here, follows Wake, and checks after every step what must hold (check_test.go).
type sim struct {
	t       testing.TB
	p       *Pool
	cfg     Config
	now     Time
	max     int
	gen     int
	running bool

	workers map[int]*simWorker // those that are not gone
	gone    map[int]Reason     // those that are
	slots   map[int]*simSlot
	spawns  []simSpawn // all that succeeded, in order
	failed  []Time     // when others failed
	effects []Effect   // of the last do or pass

	command   bool // workers are ready as soon as they are spawned
	failing   int  // so many spawns fail from now on
	leaving   bool // the next spawn that is asked for is left for later
	left      bool // one was left
	wake      Time // of the last step
	asked     int  // the slot to be spawned, of the last step
	askedGen  int
	failures  int // spawns in a row that failed
	failedTil Time
	paced     Time // the last spawn that SpawnInterval counts
	forwarded bool // SIGKILL was forwarded, staggered
	rolls     bool // workers are replaced, or come and go by load: what check_test.go restates of pacing does not know of it
	done      int  // rolls that came to their end

	resting bool // workers that end leave something of their groups
	rests   map[int]*simRest
	ended   *simWorker // the last, as it was then
	empty   []int      // rests that were found to be gone

	gaveUp      int // and that did not
	surrendered int
}

type simWorker struct {
	id, slot, gen int
	state         State
	reached       bool
	spawnedAt     Time
	got           []syscall.Signal
	owed          []syscall.Signal // signals to all that came before it had reached Start
	toldAt        Time             // to stop, first; Never if not
	lostAt        Time             // Never if not
	jammedAt      Time             // found to be stuck; Never if not
	yielded       bool             // about to end, another has its slot
	why           Reason           // it was killed
}

type simSpawn struct {
	at       Time
	slot, id int
}

// newSim makes a sim of a Pool with the stop signal SIGTERM and, where cfg has none, no jitter.
func newSim(t testing.TB, cfg Config) *sim {
	if cfg.Jitter == nil {
		cfg.Jitter = func() float64 { return 0 }
	}
	cfg.Stop = syscall.SIGTERM
	s := &sim{
		t: t, p: New(cfg), cfg: cfg, max: cfg.Max, wake: Never, paced: Never,
		workers: map[int]*simWorker{}, gone: map[int]Reason{}, slots: map[int]*simSlot{}, rests: map[int]*simRest{},
	}
	s.rolls = cfg.MinSpare > 0 || cfg.Lifetime > 0 || cfg.Standby > 0
	for i := noSlot; i < cfg.Max; i++ {
		s.slots[i] = &simSlot{}
	}
	return s
}

// begun is a sim whose first generation has begun, the workers that can be spawned at once being ready.
func begun(t testing.TB, cfg Config) *sim {
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.reachAll()
	return s
}

// do hands in one event, answers each spawn that is asked for, and returns all effects.
func (s *sim) do(ev Event) []Effect {
	s.t.Helper()
	s.effects = nil
	s.settle(s.step(ev))
	return s.effects
}

// settle answers spawns until none is asked for.
func (s *sim) settle(st Step) {
	s.t.Helper()
	for n := 0; st.Ask; n++ {
		if n > 2*(s.max+s.cfg.Surge)+1 {
			s.t.Fatalf("%v: asked for more than %d spawns at one time", s.now, n)
		}
		s.checkSpawn(st)
		switch {
		case s.leaving:
			s.leaving, s.left = false, true
			return
		case s.failing > 0:
			s.failing--
			st = s.step(Event{Kind: SpawnFailed})
		default:
			st = s.step(Event{Kind: Spawned, Ready: s.command})
		}
	}
	s.left = false
	if st.Survey {
		s.settle(s.step(Event{Kind: Surveyed}))
		return
	}
	s.checkWake()
	if len(s.empty) > 0 {
		id := s.empty[0]
		s.empty = s.empty[1:]
		s.settle(s.step(Event{Kind: Emptied, ID: id}))
	}
}

// step hands in one event and applies the effects.
func (s *sim) step(ev Event) Step {
	s.t.Helper()
	early := ev.Kind == Tick && !s.left && (s.wake == Never || s.now < s.wake)
	asked, gen := s.asked, s.askedGen
	s.note(ev)
	if ev.Kind == Tick {
		ev.Heard = s.now
	}
	st := s.p.Handle(s.now, ev)
	if early && (len(st.Effects) > 0 || st.Ask) {
		s.t.Fatalf("%v: had something to do before its Wake at %v: %+v", s.now, s.wake, st)
	}
	if ev.Kind == Spawned {
		s.spawned(asked, gen)
	}
	s.wake, s.asked, s.askedGen = st.Wake, st.Spawn, st.Gen
	s.effects = append(s.effects, st.Effects...)
	for i, e := range st.Effects {
		s.apply(ev, i, st.Effects)
		if e.Kind == Delay && e.For <= 0 {
			s.t.Fatalf("%v: a delay of %v", s.now, e.For)
		}
	}
	s.check(ev, st)
	return st
}

// pass lets d go by as a loop does that follows Wake to the point.
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

// until passes the time up to t.
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
	ev.Kind, ev.ID, ev.Rest = Exited, id, s.resting && s.cfg.Group
	return s.do(ev)
}

func (s *sim) crash(id int) []Effect { s.t.Helper(); return s.exit(id, Event{}) }
func (s *sim) leave(id int) []Effect { s.t.Helper(); return s.exit(id, Event{Clean: true}) }

// obey ends all workers that were told to stop or killed.
func (s *sim) obey() {
	s.t.Helper()
	for _, id := range s.ids() {
		switch w := s.workers[id]; w.state {
		case Stopping:
			s.exit(id, Event{Clean: true})
		case Killed:
			s.exit(id, Event{Killed: true})
		}
	}
}

// reachAll lets every worker reach Start.
func (s *sim) reachAll() {
	s.t.Helper()
	for _, id := range s.ids() {
		kind := Reached
		if s.workers[id].slot == noSlot {
			kind = Parked
		}
		s.do(Event{Kind: kind, ID: id})
	}
}

// ids lists the workers that are not gone, in order of their spawn.
func (s *sim) ids() []int { return slices.Sorted(maps.Keys(s.workers)) }

// in is the worker in a slot, nil if there is none.
func (s *sim) in(slot int) *simWorker {
	for _, w := range s.workers {
		if w.slot == slot {
			return w
		}
	}
	return nil
}

// count says how many workers are in one of the states.
func (s *sim) count(states ...State) int {
	n := 0
	for _, w := range s.workers {
		if slices.Contains(states, w.state) {
			n++
		}
	}
	return n
}

// sent lists the workers that were sent sig during the last do or pass, in order.
func (s *sim) sent(sig syscall.Signal) []int {
	ids := []int{}
	for _, e := range s.effects {
		if e.Kind == Send && e.Sig == sig {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// spawnTimes lists when a slot got its workers.
func (s *sim) spawnTimes(slot int) []Time {
	var at []Time
	for _, sp := range s.spawns {
		if sp.slot == slot {
			at = append(at, sp.at)
		}
	}
	return at
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantAll[T comparable](t testing.TB, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
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
