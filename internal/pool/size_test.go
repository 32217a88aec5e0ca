//go:build unix

package pool

import (
	"math"
	"testing"
	"time"
)

func (s *sim) allBusy(busy bool) {
	s.t.Helper()
	for _, id := range s.ids() {
		kind := Idle
		if busy {
			kind = Busy
		}
		s.do(Event{Kind: kind, ID: id})
	}
}

// T3, the original's 03-spareworkers.t without its sleeps: 3 workers, 10 if all
// are busy, then 5 if all are idle.
func TestOriginal03(t *testing.T) {
	s := begun(t, Config{Max: 10, MinSpare: 3, MaxSpare: 5, StopTimeout: sec})
	want(t, "workers", s.count(StateReady), 3)
	for range 5 {
		s.allBusy(true)
		s.readyAll()
	}
	want(t, "workers, all busy", s.count(StateReady), 10)
	s.allBusy(false)
	s.exitStopped()
	want(t, "workers, all idle", s.count(StateReady), 5)
	wantAll(t, "remaining", s.ids(), 1, 2, 3, 4, 5)
	// The next burst.
	s.allBusy(true)
	want(t, "workers, starting ones included", s.count(StateReady, StateStarting), 8)
}

// D10: idle workers are stopped, one each SpawnInterval, and no busy one is.
func TestOnlyIdleWorkersAreStopped(t *testing.T) {
	s := begun(t, Config{Max: 6, MinSpare: 1, MaxSpare: 2, SpawnInterval: sec, StopTimeout: time.Minute})
	for range 6 {
		s.allBusy(true)
		s.pass(sec)
		s.readyAll()
	}
	want(t, "workers", s.count(StateReady), 6)
	for _, id := range []int{2, 3, 5} {
		s.do(Event{Kind: Idle, ID: id})
	}
	wantAll(t, "stopped", s.sent(s.cfg.Stop), 5)
	s.do(Event{Kind: Idle, ID: 6})
	wantAll(t, "stopped within SpawnInterval", s.sent(s.cfg.Stop))
	s.pass(sec)
	wantAll(t, "stopped after it", s.sent(s.cfg.Stop), 6)
	s.pass(10 * sec)
	want(t, "ready", s.count(StateReady), 4)
}

// A surplus of several idle workers is stopped one each SpawnInterval, even if
// a survey comes sooner than the policy has requested it.
func TestSurplusIsStoppedOneByOne(t *testing.T) {
	s := begun(t, Config{Max: 5, MinSpare: 1, MaxSpare: 2, SpawnInterval: sec, StopTimeout: time.Minute})
	for range 5 {
		s.allBusy(true)
		s.pass(sec)
		s.readyAll()
	}
	s.pass(sec)
	want(t, "workers", s.count(StateReady), 5)
	for id := range 4 { // Plan requests the survey only after the last event
		s.step(Event{Kind: Idle, ID: id + 1})
	}
	s.do(Event{Kind: Idle, ID: 5})
	wantAll(t, "stopped at once", s.sent(s.cfg.Stop), 5)
	s.do(Event{Kind: Surveyed})
	wantAll(t, "stopped within SpawnInterval", s.sent(s.cfg.Stop))
	s.pass(sec - 1)
	wantAll(t, "stopped within SpawnInterval", s.sent(s.cfg.Stop))
	s.pass(1)
	wantAll(t, "stopped after SpawnInterval", s.sent(s.cfg.Stop), 4)
	s.pass(sec)
	wantAll(t, "stopped after two", s.sent(s.cfg.Stop), 3)
	s.pass(time.Minute)
	want(t, "ready", s.count(StateReady), 2)
}

// Sizing follows a raised maximum. A worker that crashes while enough are idle
// is not replaced.
func TestSizingAndMax(t *testing.T) {
	s := begun(t, Config{Max: 2, MinSpare: 2, MaxSpare: 4, StopTimeout: sec})
	s.allBusy(true)
	want(t, "workers", s.count(StateReady, StateStarting), 2)
	s.do(Event{Kind: Resize, N: 10})
	s.readyAll()
	want(t, "workers after Resize", s.count(StateReady), 4)
	s.allBusy(false)
	s.pass(10 * sec)
	s.crash(1)
	want(t, "workers after a crash", s.count(StateReady, StateStarting), 3)
}

// A worker is recycled when its replacement is ready, at most Surge at a time.
func TestRecycle(t *testing.T) {
	s := begun(t, Config{Max: 3, Surge: 1, StopTimeout: sec, ErrRespawn: sec})
	s.pass(5 * sec)
	for _, id := range []int{1, 2, 2} {
		s.do(Event{Kind: Recycle, ID: id})
	}
	wantAll(t, "replacements", s.starting(), 4)
	wantAll(t, "stopped", s.sent(s.cfg.Stop))
	s.ready(4)
	wantAll(t, "stopped", s.sent(s.cfg.Stop), 1)
	wantAll(t, "replacements", s.starting(), 5)
	want(t, "generation of the replacement", s.workers[5].gen, 1)
	s.exitZero(1)
	want(t, "reason", s.gone[1], ReasonRecycled)
	s.crash(5) // the worker stays until the delay of its slot has passed
	want(t, "ready", s.count(StateReady), 3)
	s.pass(sec)
	s.readyAll()
	s.exitStopped()
	want(t, "ready", s.count(StateReady), 3)
	want(t, "reason", s.gone[2], ReasonRecycled)
}

// Workers that ask to be recycled at once are replaced once a second in each
// slot, and keep serving until then: Recycle.MaxRequests of 1 must neither
// consist of spawns nor leave a slot empty. A shorter ErrRespawn shortens that,
// and without backoff nothing holds them back.
func TestRecyclingHasAPace(t *testing.T) {
	for _, test := range []struct {
		name       string
		errRespawn time.Duration
		want       []Time
	}{
		{"by default", sec, []Time{0, sec, 2 * sec}},
		{"long backoff", time.Minute, []Time{0, sec, 2 * sec}},
		{"short backoff", 500 * ms, []Time{0, 500 * ms, sec, 1500 * ms, 2 * sec}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := begun(t, Config{Max: 2, Surge: 2, StopTimeout: sec, ErrRespawn: test.errRespawn})
			for s.now < 2*sec {
				s.recycleAll()
				s.pass(100 * ms)
				s.readyAll()
				want(t, "workers that serve", s.count(StateReady), 2)
				s.exitStopped()
			}
			for slot := range 2 {
				wantAll(t, "spawns", s.spawnTimes(slot), test.want...)
			}
		})
	}
	s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, ErrRespawn: -1})
	for range 10 {
		s.recycleAll()
		s.readyAll()
	}
	want(t, "spawns without backoff", len(s.spawns), 11)
}

// recycleAll recycles all workers that are ready, as Recycle.MaxRequests does.
func (s *sim) recycleAll() {
	s.t.Helper()
	for _, id := range s.ids() {
		if s.workers[id].state == StateReady {
			s.do(Event{Kind: Recycle, ID: id})
		}
	}
}

// The pace holds also for a replacement that asks before it is ready, and for a
// lifetime that is shorter. It does not hold back a roll.
func TestPaceOfRecycling(t *testing.T) {
	s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, ErrRespawn: sec})
	s.pass(5 * sec)
	s.do(Event{Kind: Recycle, ID: 1})
	s.do(Event{Kind: Recycle, ID: 2})
	s.ready(2)
	s.pass(999 * ms)
	want(t, "spawns before a second has passed", len(s.spawns), 2)
	s.pass(ms)
	want(t, "spawns after it", len(s.spawns), 3)
	s.ready(3)
	s.do(Event{Kind: Recycle, ID: 3})
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Roll, Sig: rollSig})
	s.do(Event{Kind: Begin})
	want(t, "spawns of a roll", len(s.spawns), 4)

	s = begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, ErrRespawn: sec, Lifetime: ms})
	for range 100 {
		s.pass(100 * ms)
		s.readyAll()
	}
	want(t, "spawns in 10 s", len(s.spawns), 11)

	// With a long lifetime too, whether it begins before or after the request.
	for _, ready := range []bool{false, true} {
		s = newSim(t, Config{Max: 4, Surge: 4, StopTimeout: sec, ErrRespawn: sec, Lifetime: time.Hour})
		s.do(Event{Kind: Begin})
		if ready {
			s.readyAll()
		}
		s.do(Event{Kind: Recycle, ID: 4})
		s.readyAll()
		s.pass(999 * ms)
		want(t, "spawns before a second has passed", len(s.spawns), 4)
		s.pass(ms)
		want(t, "spawns after it", len(s.spawns), 5)
	}
}

func TestLifetime(t *testing.T) {
	s := newSim(t, Config{Max: 2, Surge: 1, StopTimeout: sec, Lifetime: time.Hour, Jitter: func() float64 { return 0.5 }})
	s.do(Event{Kind: Begin})
	s.readyAll()
	s.pass(53 * time.Minute)
	want(t, "replacements before 54 minutes", len(s.starting()), 0)
	s.pass(2 * time.Minute)
	want(t, "replacements after", len(s.starting()), 1)
}

// A stuck worker dumps its stacks, is killed after dumpTime, and counts as a
// crash.
func TestStuck(t *testing.T) {
	for _, dumps := range []bool{true, false} {
		s := begun(t, Config{Max: 1, Surge: 1, StopTimeout: sec, Dump: dumpSig})
		s.pass(time.Minute)
		s.do(Event{Kind: Stuck, ID: 1})
		wantAll(t, "dumping", s.sent(dumpSig), 1)
		if dumps {
			s.crash(1)
		} else {
			s.pass(500 * ms)
			want(t, "killed", s.workers[1].state, StateKilled)
			s.exit(1, Event{Killed: true})
		}
		want(t, "reason", s.gone[1], ReasonStuck)
		want(t, "replaced", len(s.spawns), 2)
	}
}

// A stuck worker is killed even if it becomes ready in the meantime.
func TestStuckWorkerThatBecomesReadyIsKilled(t *testing.T) {
	s := newSim(t, Config{Max: 1, Surge: 1, StopTimeout: sec, Dump: dumpSig})
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Stuck, ID: 1})
	s.ready(1)
	s.pass(dumpTime)
	want(t, "state", s.workers[1].state, StateKilled)
}

// Many failures are a crash loop unless a worker is ready.
func TestCrashLoop(t *testing.T) {
	s := newSim(t, Config{Max: 2, Surge: 1, ErrRespawn: -1, CrashLoop: 5, CrashWindow: 10 * sec})
	s.do(Event{Kind: Begin})
	s.ready(1)
	for range 10 {
		s.crash(len(s.spawns))
	}
	want(t, "crash loops while one is ready", s.crashLoops, 0)
	s.crash(1)
	want(t, "crash loops", s.crashLoops, 1)
	s.crash(len(s.spawns))
	want(t, "crash loops are reported once", s.crashLoops, 1)

	s = newSim(t, Config{Max: 1, Surge: 1, ErrRespawn: -1, CrashLoop: 5, CrashWindow: 10 * sec})
	s.do(Event{Kind: Begin})
	for range 20 {
		s.crash(len(s.spawns))
		s.pass(3 * sec)
	}
	want(t, "crash loops with a failure each 3 s", s.crashLoops, 0)

	// Failures that no longer count are forgotten, however many are a crash loop.
	s = newSim(t, Config{Max: 1, Surge: 1, ErrRespawn: -1, CrashLoop: math.MaxInt, CrashWindow: 10 * sec})
	s.do(Event{Kind: Begin})
	for range 100 {
		s.crash(len(s.spawns))
		s.pass(sec)
	}
	if n := len(s.p.failureTimes); n > 11 {
		t.Errorf("%d failures are kept of the last 10 s", n)
	}
}

// The pool is full when no worker is missing or starting. With dynamic sizing
// that can be less than Max.
func TestFull(t *testing.T) {
	s := begun(t, Config{Max: 10, MinSpare: 2, MaxSpare: 4, StopTimeout: sec})
	want(t, "full, with two idle", s.p.Full(), true)
	s.do(Event{Kind: Busy, ID: 1})
	want(t, "full, while one starts", s.p.Full(), false)
	s.readyAll()
	want(t, "full, with one busy", s.p.Full(), true)
	s.pass(2 * sec)
	s.crash(2)
	want(t, "full, after a crash", s.p.Full(), false)
	s = begun(t, Config{Max: 10, MinSpare: 1, MaxSpare: 4, StopTimeout: sec, ReadyTimeout: sec})
	s.do(Event{Kind: Busy, ID: 1})
	s.do(Event{Kind: Idle, ID: 1})
	s.pass(sec)
	want(t, "full, while a killed worker has not exited", s.p.Full(), false)
	s.exitStopped()
	want(t, "full, when it has exited", s.p.Full(), true)
	s.do(Event{Kind: Halt})
	want(t, "full, at the end", s.p.Full(), false)
	s = newSim(t, Config{Max: 2, StopTimeout: sec})
	s.do(Event{Kind: Begin})
	s.do(Event{Kind: Ready, ID: 2})
	want(t, "full, with one of two", s.p.Full(), false)
	s.readyAll()
	want(t, "full", s.p.Full(), true)
}
