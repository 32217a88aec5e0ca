//go:build unix

package pool

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

func never(slots int) Config {
	cfg := usual(slots)
	cfg.CrashWindow, cfg.UnprovenLoop, cfg.ReadyTimeout = time.Minute, 3, time.Minute
	return cfg
}

// loopsAt returns when the pool reports a crash loop if every worker ends as
// given, or Never within an hour.
func loopsAt(s *sim, end func(id int)) Time {
	s.do(Event{Kind: Begin})
	for s.now < time.Hour {
		for _, id := range s.ids() {
			end(id)
		}
		if s.crashLoops > 0 {
			return s.now
		}
		s.pass(100 * ms)
	}
	return Never
}

// A pool whose workers never work is a crash loop, however they fail, and one
// that a service keeps waiting for two seconds at boot is not.
func TestWorkersThatNeverWorkAreACrashLoop(t *testing.T) {
	for _, e := range []time.Duration{-1, 10 * ms, sec} {
		for _, slots := range []int{1, 4, 10} {
			for name, life := range map[string]func(s *sim, id int){
				"crash at once": func(s *sim, id int) { s.crash(id) },
				"exit early":    func(s *sim, id int) { s.exitZero(id) },
				"crash once ready": func(s *sim, id int) {
					s.ready(id)
					s.crash(id)
				},
				"crash after 3 s, not ready": func(s *sim, id int) {
					if s.now-s.workers[id].spawnedAt >= 3*sec {
						s.crash(id)
					}
				},
				"ready timeout": func(s *sim, id int) {
					if s.workers[id].state == StateKilled {
						s.exit(id, Event{Killed: true})
					}
				},
			} {
				t.Run(fmt.Sprintf("%v %d %s", e, slots, name), func(t *testing.T) {
					cfg := never(slots)
					cfg.ErrRespawn = e
					s := newSim(t, cfg)
					at := loopsAt(s, func(id int) {
						if s.workers[id] != nil {
							life(s, id)
						}
					})
					if at < 2500*ms || at > 4*time.Minute {
						t.Errorf("a crash loop at %v", at)
					}
				})
			}
		}
	}
	t.Run("failed spawns", func(t *testing.T) {
		s := newSim(t, never(10))
		s.failing = 100
		s.do(Event{Kind: Begin})
		s.pass(2 * sec)
		want(t, "crash loops after 2 s", s.crashLoops, 0)
		s.pass(2 * sec)
		want(t, "crash loops after 4 s", s.crashLoops, 1)
	})
	t.Run("a shortage proves nothing", func(t *testing.T) {
		s := newSim(t, never(1))
		s.failing, s.shortage = 100, true
		s.do(Event{Kind: Begin})
		s.pass(time.Hour)
		want(t, "crash loops", s.crashLoops, 0)
	})
	t.Run("sized dynamically", func(t *testing.T) {
		cfg := never(10)
		cfg.MinSpare, cfg.MaxSpare = 2, 4
		s := newSim(t, cfg)
		if at := loopsAt(s, func(id int) { s.crash(id) }); at == Never || at > 10*sec {
			t.Errorf("a crash loop at %v", at)
		}
	})
}

// Once a worker was ready for longer than a second, the pool keeps trying, in
// later generations too.
func TestAPoolThatHasWorkedKeepsTrying(t *testing.T) {
	for _, c := range []struct {
		ready time.Duration
		loops int
	}{{sec, 1}, {sec + 1, 0}} {
		s := begun(t, never(2))
		s.pass(c.ready)
		for range 2 {
			for range 1000 {
				for _, id := range s.ids() {
					s.crash(id)
				}
				s.pass(100 * ms)
			}
			want(t, "crash loops", min(s.crashLoops, 1), c.loops)
			s.do(Event{Kind: Halt})
			s.do(Event{Kind: Begin})
		}
	}
}

// While a worker is ready there is no crash loop, and when it has worked there
// is none after it.
func TestOneReadyWorkerPreventsACrashLoop(t *testing.T) {
	s := newSim(t, never(2))
	s.do(Event{Kind: Begin})
	s.ready(1)
	for range 100 {
		if w := s.in(1); w != nil {
			s.crash(w.id)
		}
		s.pass(100 * ms)
	}
	s.crash(1)
	s.pass(time.Minute)
	want(t, "crash loops", s.crashLoops, 0)
}

// A life that ends before the worker was ready has a growing delay, however long
// it was.
func TestLifeThatWasNotReadyIsYoung(t *testing.T) {
	for _, life := range []time.Duration{1500 * ms, 15 * sec} {
		s := newSim(t, usual(1))
		s.do(Event{Kind: Begin})
		for range 12 {
			s.pass(life)
			s.crash(s.in(0).id)
			for s.in(0) == nil {
				s.until(s.wake)
			}
		}
		at := s.spawnTimes(0)
		if gap := at[len(at)-1] - at[len(at)-2]; gap != 48*sec {
			t.Errorf("lives of %v: a gap of %v", life, gap)
		}
	}
}

// A rolling generation whose workers crash a few seconds after they were ready
// fails, however long they took to become ready.
func TestRollFailsByCrashAfterASlowStart(t *testing.T) {
	for _, c := range []struct {
		served time.Duration
		failed int
	}{{1500 * ms, 1}, {4900 * ms, 1}, {5 * sec, 0}} {
		s := rolling(t, 2, 1)
		s.pass(9 * sec) // the ready timeout is 10 s
		s.ready(3)
		s.pass(c.served)
		s.crash(3)
		want(t, fmt.Sprintf("failed after %v", c.served), s.rollsFailed, c.failed)
	}
}

// Workers that do short jobs have worked, however short their lives are. A
// service that is away later ends no such pool.
func TestShortJobsAreNoCrashLoop(t *testing.T) {
	s := newSim(t, never(2))
	s.do(Event{Kind: Begin})
	for range 50 {
		s.readyAll()
		for _, id := range s.ids() {
			s.exitZero(id)
		}
		s.pass(100 * ms)
	}
	for range 50 {
		for _, id := range s.ids() {
			s.crash(id)
		}
		s.pass(10 * sec)
	}
	want(t, "crash loops", s.crashLoops, 0)
}

// A worker that becomes ready only after it was stopped or killed was never at
// work. It proves nothing, and if it was killed for not being ready, its end is
// one that came too early.
func TestReadyAfterTheEndProvesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  []Event
	}{
		{"killed", []Event{{Kind: KillAll}}},
		{"stopped", []Event{{Kind: Signal, Sig: syscall.SIGTERM}}},
		{"stopped and killed", []Event{{Kind: Signal, Sig: syscall.SIGTERM}, {Kind: KillAll}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := never(2)
			cfg.StopTimeout, cfg.ReadyTimeout = -1, 0
			s := newSim(t, cfg)
			s.do(Event{Kind: Begin})
			for _, ev := range c.end {
				s.do(ev)
			}
			s.ready(1)
			s.do(Event{Kind: Resize, N: 3})
			s.failing = 100
			s.crash(3)
			s.pass(10 * sec)
			want(t, "crash loops while it has not exited", s.crashLoops, 1)
		})
	}
	t.Run("ready timeout", func(t *testing.T) {
		cfg := usual(1)
		cfg.ReadyTimeout = 20 * sec
		s := newSim(t, cfg)
		s.do(Event{Kind: Begin})
		for range 3 {
			s.pass(cfg.ReadyTimeout)
			id := s.in(0).id
			s.ready(id)
			s.exit(id, Event{Killed: true})
			want(t, "reason", s.gone[id], ReasonReadyTimeout)
			for s.in(0) == nil {
				s.until(s.wake)
			}
		}
		want(t, "ends that count towards the delay", s.p.slots[0].badEnds, 3)
	})
	t.Run("exit with code 0 after the ready timeout", func(t *testing.T) {
		cfg := never(1)
		cfg.ReadyTimeout = sec
		s := newSim(t, cfg)
		at := loopsAt(s, func(id int) {
			if s.workers[id].state == StateKilled {
				s.ready(id)
				s.exitZero(id)
			}
		})
		if at == Never {
			t.Error("no crash loop")
		}
	})
}
