//go:build unix

package pool

import (
	"syscall"
	"testing"
	"time"
)

// checkSettled: a pool that is settled has a ready worker for all that it wants,
// and nothing else is under way.
func (s *sim) checkSettled() {
	s.t.Helper()
	if !s.p.Settled() {
		return
	}
	ready := 0
	for _, w := range s.workers {
		switch {
		case w.state == StateStarting:
			s.t.Fatalf("%v: settled, and worker %d is starting", s.now, w.id)
		case w.state == StateReady && !w.exiting:
			ready++
		}
	}
	if s.cfg.MinSpare == 0 && ready+s.closedSlots(false) != s.max {
		s.t.Fatalf("%v: settled with %d ready workers of %d", s.now, ready, s.max)
	}
	if !s.running {
		s.t.Fatalf("%v: settled, and no generation runs", s.now)
	}
	if st := s.p.Plan(s.now); st.SpawnDue {
		s.t.Fatalf("%v: settled, and a spawn is due: %+v", s.now, st)
	}
}

// wantSettled compares Settled and the generation that serves.
func (s *sim) wantSettled(when string, settled bool, serving int) {
	s.t.Helper()
	if got, gen := s.p.Settled(), s.p.ServingGeneration(); got != settled || gen != serving {
		s.t.Errorf("%s: settled %t on generation %d, want %t on %d", when, got, gen, settled, serving)
	}
}

func TestSettled(t *testing.T) {
	cfg := Config{Max: 2, Surge: 1, ErrRespawn: sec, StopTimeout: time.Minute}
	stop := Event{Kind: Signal, Sig: syscall.SIGTERM}
	begin := Event{Kind: Begin}

	t.Run("start and crash", func(t *testing.T) {
		s := newSim(t, cfg)
		s.wantSettled("before the first generation", false, 0)
		s.do(begin)
		s.wantSettled("while workers start", false, 1)
		s.ready(1)
		s.wantSettled("with one of two", false, 1)
		s.ready(2)
		s.wantSettled("with both", true, 1)
		s.pass(time.Minute)
		s.crash(1)
		s.wantSettled("after a crash", false, 1)
		s.pass(2 * sec)
		s.readyAll()
		s.wantSettled("after the respawn", true, 1)
		s.do(Event{Kind: Resize, N: 3})
		s.wantSettled("with one more wanted", false, 1)
		s.readyAll()
		s.do(Event{Kind: Resize, N: 1})
		s.wantSettled("with less wanted", true, 1)
		s.do(Event{Kind: Resize, N: 0})
		s.wantSettled("with none wanted", true, 1)
		s.do(Event{Kind: Halt})
		s.wantSettled("after the generation", false, 1)
	})
	t.Run("all at once", func(t *testing.T) {
		s := begun(t, cfg)
		s.do(Event{Kind: Halt})
		s.do(stop)
		s.do(begin)
		s.wantSettled("while the workers stop", false, 2)
		s.exitStopped()
		s.readyAll()
		s.wantSettled("with the new ones", true, 2)
	})
	t.Run("staggered", func(t *testing.T) {
		s := begun(t, cfg)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Forward, Sig: syscall.SIGTERM, Interval: 10 * sec, Received: syscall.SIGHUP})
		s.do(begin)
		s.exitStopped()
		s.readyAll()
		s.wantSettled("full, and one of the old ones is at work", false, 2)
		s.pass(10 * sec)
		s.exitStopped()
		s.readyAll()
		s.wantSettled("with the new ones", true, 2)
	})
	t.Run("nothing replaces the old ones", func(t *testing.T) {
		s := begun(t, cfg)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Signal, Sig: syscall.SIGUSR1})
		s.do(begin)
		s.wantSettled("with workers of generation 1", true, 2)
	})
	t.Run("rolling", func(t *testing.T) {
		s := begun(t, cfg)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Roll})
		s.do(begin)
		s.wantSettled("before the first is ready", false, 1)
		s.ready(3)
		if !s.p.Full() {
			t.Error("the pool is not full in the middle of a roll")
		}
		s.wantSettled("in the middle", false, 1)
		s.ready(4)
		s.wantSettled("when all are replaced, and the old ones stop", true, 2)
		s.crash(4)
		s.wantSettled("when the generation has failed", false, 1)
		s.readyAll()
		s.readyAll()
		s.readyAll()
		s.wantSettled("back", true, 1)
	})
	t.Run("recycled", func(t *testing.T) {
		s := begun(t, cfg)
		s.pass(2 * sec)
		s.do(Event{Kind: Recycle, ID: 1})
		s.wantSettled("while the replacement starts", false, 1)
		s.ready(3)
		s.wantSettled("when it is ready", true, 1)
	})
	t.Run("standby", func(t *testing.T) {
		cfg := cfg
		cfg.Standby = 1
		s := newSim(t, cfg)
		s.do(begin)
		s.ready(1)
		s.ready(2)
		s.wantSettled("while the standby starts", false, 1)
		s.do(Event{Kind: Parked, ID: 3})
		s.wantSettled("when it has parked", true, 1)
		s.do(Event{Kind: Resize, N: 0})
		s.wantSettled("without slots", true, 1)
	})
	t.Run("sized by load", func(t *testing.T) {
		cfg := cfg
		cfg.Max, cfg.MinSpare, cfg.MaxSpare = 10, 2, 10
		s := begun(t, cfg)
		s.wantSettled("idle", true, 1)
		s.do(Event{Kind: Busy, ID: 1})
		s.wantSettled("while one more starts", false, 1)
		s.readyAll()
		s.wantSettled("with one more", true, 1)
		want(t, "wanted", s.p.Wanted(), 3)
	})
}

func TestSlotState(t *testing.T) {
	s := begun(t, Config{Max: 2, Surge: 1, ErrRespawn: 2 * sec, StopTimeout: time.Minute})
	slot := func(when string, i int, want Slot) {
		t.Helper()
		if got := s.p.Slot(i); got != want {
			t.Errorf("%s: slot %d is %+v, want %+v", when, i, got, want)
		}
	}
	want(t, "slots", s.p.Slots(), 2)
	slot("at work", 0, Slot{Spawns: 1, Due: Never})
	s.crash(1)
	slot("after a crash", 0, Slot{Spawns: 1, Crashes: 1, Due: 2 * sec})
	slot("after a crash", 1, Slot{Spawns: 1, Due: Never})
	s.pass(2 * sec)
	s.crash(3)
	slot("after the next crash", 0, Slot{Spawns: 2, Crashes: 2, Due: 5200 * ms})
	s.do(Event{Kind: Halt})
	slot("without a generation", 0, Slot{Spawns: 2, Crashes: 2, Due: Never})
	s.do(Event{Kind: Begin})
	slot("a new generation shortens the delay", 0, Slot{Spawns: 2, Due: 4 * sec})
	s.pass(2 * sec)
	s.ready(4)
	s.exitZero(4)
	slot("after a clean end", 0, Slot{Spawns: 4, Due: Never})
	s.crash(5)
	slot("again", 0, Slot{Spawns: 4, Crashes: 1, Due: 6 * sec})
	s.pass(2 * sec)
	s.readyAll()
	s.pass(3 * sec)
	s.crash(6)
	slot("after a longer life", 0, Slot{Spawns: 6, Crashes: 1, Due: Never})

	want(t, "held before", s.p.HeldUntil(), Never)
	s.failing = 1
	s.crash(2)
	want(t, "held", s.p.HeldUntil(), s.now+2*sec)
	s.pass(2 * sec)
	want(t, "held after a spawn", s.p.HeldUntil(), Never)
}

func TestDeadlineOf(t *testing.T) {
	s := newSim(t, Config{Max: 1, Surge: 1, ErrRespawn: sec, StopTimeout: time.Minute, ReadyTimeout: 10 * sec})
	s.do(Event{Kind: Begin})
	want(t, "starting", s.p.Deadline(1), 10*sec)
	s.ready(1)
	want(t, "ready", s.p.Deadline(1), Never)
	s.pass(sec)
	s.do(Event{Kind: Signal, Sig: syscall.SIGTERM})
	want(t, "stopping", s.p.Deadline(1), s.now+time.Minute)
	s.exitStopped()
	want(t, "gone", s.p.Deadline(1), Never)
}
