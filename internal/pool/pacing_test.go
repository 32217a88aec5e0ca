//go:build unix

package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// gaps returns the times between the spawns in slot 0. Its workers live as long
// as given and then crash.
func gaps(t *testing.T, e time.Duration, jitter float64, lives ...time.Duration) []time.Duration {
	t.Helper()
	s := begun(t, Config{Max: 1, ErrRespawn: e, Jitter: func() float64 { return jitter }})
	for _, life := range lives {
		s.pass(life)
		s.crash(s.in(0).id)
		for s.in(0) == nil {
			s.until(s.wake)
		}
		s.readyAll()
	}
	at := s.spawnTimes(0)
	d := make([]time.Duration, len(at)-1)
	for i := range d {
		d[i] = at[i+1] - at[i]
	}
	return d
}

func TestDelaysGrowInACrashLoop(t *testing.T) {
	tests := []struct {
		e      time.Duration
		jitter float64
		want   []Time
	}{
		// The first delay is at least ErrRespawn; jitter changes the others by
		// up to 20 % both ways.
		{sec, 0, secs(1, 1.6, 3.2, 6.4, 12.8, 25.6, 48, 48)},
		{sec, 0.5, secs(1.1, 2, 4, 8, 16, 32, 60, 60)},
		{sec, 0.999, secs(1.1998, 2.3992, 4.7984, 9.5968, 19.1936, 38.3872, 71.976, 71.976)},
		{100 * ms, 0.5, secs(0.11, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60)},
		{7 * sec, 0.5, secs(7.7, 14, 28, 56, 60, 60)},
		// No delay is below ErrRespawn, even a long one.
		{time.Minute, 0, secs(60, 60, 60)},
		{55 * sec, 0, secs(55, 55, 55)},
		{55 * sec, 0.999, secs(65.989, 71.983, 71.983)},
		{2 * time.Minute, 0, secs(120, 120, 120)},
		{2 * time.Minute, 0.5, secs(132, 132, 132)},
		{2 * time.Minute, 0.999, secs(143.976, 143.976, 143.976)},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("ErrRespawn %v jitter %v", tt.e, tt.jitter), func(t *testing.T) {
			got := gaps(t, tt.e, tt.jitter, slices.Repeat([]time.Duration{ms}, len(tt.want))...)
			for i := range got {
				got[i] = got[i].Round(time.Microsecond)
			}
			wantAll(t, "gaps", got, tt.want...)
		})
	}
}

func TestDelayCountsFromTheSpawn(t *testing.T) {
	wantAll(t, "gaps", gaps(t, 5*sec, 0, 4*sec, 0), secs(5, 8)...)
	// The life of the worker is part of the delay.
	wantAll(t, "gaps", gaps(t, 100*ms, 0, 300*ms), secs(0.3)...)
	wantAll(t, "gaps, the first life being young", gaps(t, 500*ms, 0, 700*ms, 0), secs(0.7, 0.8)...)
}

func TestLifeOfTenTimesTheDelayResetsIt(t *testing.T) {
	wantAll(t, "gaps", gaps(t, sec, 0.5, 0, 0, 20*sec-1, 0), []Time{1100 * ms, 2 * sec, 20*sec - 1, 4 * sec}...)
	wantAll(t, "gaps", gaps(t, sec, 0.5, 0, 0, 20*sec, 0), []Time{1100 * ms, 2 * sec, 20 * sec, 1100 * ms}...)
}

func TestNoDelayAfterALifeThatWasNotYoung(t *testing.T) {
	tests := []struct {
		e, life, gap time.Duration
	}{
		{sec, sec - 1, sec},
		{sec, sec, sec},
		{500 * ms, 700 * ms, 700 * ms}, // young, but its delay has passed
		{500 * ms, sec, sec},
		{3 * sec, 2 * sec, 3 * sec},
		{3 * sec, 3 * sec, 3 * sec},
		{3 * sec, 4 * sec, 4 * sec},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("ErrRespawn %v life %v", tt.e, tt.life), func(t *testing.T) {
			wantAll(t, "gaps", gaps(t, tt.e, 0, tt.life), tt.gap)
		})
	}
}

func TestNegativeErrRespawnMeansNoDelay(t *testing.T) {
	wantAll(t, "gaps after crashes", gaps(t, -1, 0.5, 0, 0, ms, 0, 0), 0, 0, ms, 0, 0)
	s := begun(t, Config{Max: 1, ErrRespawn: -1})
	for range 10 {
		s.exitZero(s.in(0).id)
	}
	want(t, "spawns at once", len(s.spawns), 11)
}

func TestD7YoungCleanEndsAreThrottled(t *testing.T) {
	s := begun(t, usual(3))
	// Every worker exits at once.
	for s.now < time.Minute {
		for _, id := range s.ids() {
			s.exitZero(id)
		}
		if len(s.workers) == 0 {
			s.until(s.wake)
		}
	}
	for slot := range 3 {
		at := s.spawnTimes(slot)
		wantAll(t, "first spawns", at[:6], secs(0, 0, 0, 1, 2.6, 5.8)...)
		want(t, "spawns until the first after a minute", len(at), 10)
	}
}

func TestD7TwoYoungCleanEndsInARowCostNothing(t *testing.T) {
	s := begun(t, usual(1))
	end := func(life time.Duration, end func(int) []Effect) time.Duration {
		s.pass(life)
		end(s.in(0).id)
		reaped := s.now
		for s.in(0) == nil {
			s.until(s.wake)
		}
		s.readyAll()
		return s.now - reaped
	}
	steps := []struct {
		name  string
		life  time.Duration
		end   func(int) []Effect
		delay time.Duration
	}{
		{"first", 0, s.exitZero, 0},
		{"second", 0, s.exitZero, 0},
		{"third", 100 * ms, s.exitZero, 900 * ms},
		{"a long life ends the row", sec, s.exitZero, 0},
		{"first again", 0, s.exitZero, 0},
		{"second again", 0, s.exitZero, 0},
		{"a crash ends the row as well", 0, s.crash, sec},
		{"first of a third row", 0, s.exitZero, 0},
		{"second of it", 0, s.exitZero, 0},
		{"third of it", 0, s.exitZero, sec},
		// Clean ends between crashes do not shorten the next delay.
		{"a second crash", 0, s.crash, 1600 * ms},
	}
	for _, step := range steps {
		want(t, step.name, end(step.life, step.end), step.delay)
	}
}

func TestD4EachSlotHasItsOwnDelay(t *testing.T) {
	cfg := usual(5)
	cfg.SpawnInterval = 900 * ms
	s := begun(t, cfg)
	// Each worker crashes half a second after its spawn, 0.9 s after the one
	// before it.
	for slot := range 5 {
		s.until(time.Duration(slot)*900*ms + 500*ms)
		s.readyAll()
		s.crash(s.in(slot).id)
		want(t, "Delay", s.effects[1].For, 500*ms)
	}
	s.until(10 * sec)
	for slot := range 5 {
		born := time.Duration(slot) * 900 * ms
		wantAll(t, "spawns", s.spawnTimes(slot), born, born+sec)
	}
}

func TestD4CrashesOfAllSlotsLeaveWorkersReady(t *testing.T) {
	s := begun(t, usual(5))
	fewest := 5
	for slot := range 5 {
		s.until(time.Duration(slot+1) * 900 * ms)
		s.crash(s.in(slot).id)
		fewest = min(fewest, s.count(StateReady))
		s.readyAll()
	}
	want(t, "fewest workers ready", fewest, 4-1)
	wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 1)...)
	wantAll(t, "spawns in slot 4", s.spawnTimes(4), secs(0, 4.5)...)
}

func TestSlotDueFirstIsSpawnedFirst(t *testing.T) {
	cfg := usual(4)
	cfg.SpawnInterval = 10 * ms
	s := newSim(t, cfg)
	s.do(Event{Kind: Begin})
	s.pass(100 * ms)
	// Slot 3 crashes once, slot 2 twice, and so on: lower slots have longer
	// delays.
	for s.now < time.Minute {
		for slot := range 4 {
			if w := s.in(slot); w != nil && len(s.spawnTimes(slot)) < 5-slot {
				s.crash(w.id)
			}
		}
		s.until(s.now + 100*ms)
	}
	for slot := range 4 {
		want(t, "spawns", len(s.spawnTimes(slot)), 5-slot)
	}
	last := func(slot int) Time { at := s.spawnTimes(slot); return at[len(at)-1] }
	if !(last(0) > last(1) && last(1) > last(2) && last(2) > last(3)) {
		t.Errorf("last spawns: %v", s.spawns)
	}
	// Of the slots that SpawnInterval holds back, the one that has been empty
	// longest comes first.
	n := len(s.spawns)
	for _, slot := range []int{2, 0, 3, 1} {
		s.exitZero(s.in(slot).id)
		s.pass(1)
	}
	s.pass(sec)
	var order []int
	for _, sp := range s.spawns[n:] {
		order = append(order, sp.slot)
	}
	wantAll(t, "slots in order", order, 2, 0, 3, 1)
}

func TestR5EndOfAnOlderGenerationsWorkerCausesNoDelay(t *testing.T) {
	cfg := usual(3)
	cfg.ErrRespawn = 30 * sec
	t.Run("between two generations", func(t *testing.T) {
		s := begun(t, cfg)
		s.until(5 * sec)
		s.do(Event{Kind: Halt})
		s.crash(1)
		s.do(Event{Kind: Begin})
		wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 5)...)
	})
	t.Run("P19 while the next one runs", func(t *testing.T) {
		s := begun(t, cfg)
		s.until(5 * sec)
		s.do(Event{Kind: Halt})
		s.do(Event{Kind: Begin})
		s.crash(1)
		wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 5)...)
		// The next worker is of the running generation.
		s.crash(s.in(0).id)
		s.until(time.Minute)
		wantAll(t, "spawns in slot 0", s.spawnTimes(0), secs(0, 5, 35)...)
	})
}

func TestNewGenerationShortensDelays(t *testing.T) {
	s := begun(t, usual(1))
	for range 5 {
		s.crash(s.in(0).id)
		for s.in(0) == nil {
			s.until(s.wake)
		}
	}
	s.crash(s.in(0).id)
	spawned := s.now
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin})
	want(t, "Wake", s.wake, spawned+sec)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin})
	want(t, "Wake after another", s.wake, spawned+sec)
	s.pass(sec)
	s.crash(s.in(0).id)
	want(t, "the next delay", s.effects[1].For, sec)
}

func TestDelayIsReported(t *testing.T) {
	s := begun(t, usual(2))
	s.pass(300 * ms)
	effects := s.crash(2)
	want(t, "effects", len(effects), 2)
	want(t, "end", effects[0], Effect{Kind: Change, ID: 2, Slot: 1, From: StateReady, To: StateGone, Reason: ReasonCrashed})
	want(t, "delay", effects[1], Effect{Kind: Delay, ID: 2, Slot: 1, For: 700 * ms})
}

// listGaps returns the times between the spawns in slot 0 with a list of delays.
// Its workers live as long as given, and then end.
func listGaps(t *testing.T, list List, ready bool, ends ...listEnd) (gaps []time.Duration) {
	t.Helper()
	s := newSim(t, Config{Max: 1, ErrRespawn: time.Hour, Backoff: list, Jitter: func() float64 { return 0.999 }})
	s.do(Event{Kind: Begin})
	for _, e := range ends {
		if ready {
			s.readyAll()
		}
		s.pass(e.life)
		s.exit(s.in(0).id, Event{Clean: e.clean})
		for s.in(0) == nil {
			s.until(s.wake)
		}
	}
	at := s.spawnTimes(0)
	for i := range len(at) - 1 {
		gaps = append(gaps, at[i+1]-at[i])
	}
	return gaps
}

type listEnd struct {
	life  time.Duration
	clean bool
}

func crashes(lives ...time.Duration) (ends []listEnd) {
	for _, life := range lives {
		ends = append(ends, listEnd{life: life})
	}
	return ends
}

func TestBackoffList(t *testing.T) {
	cron := List{0, 5 * sec, 15 * sec, 60 * sec}
	late := crashes(2*sec, 2*sec, 2*sec, 2*sec)
	clean := listEnd{ms, true}
	for _, tt := range []struct {
		name     string
		list     List
		notReady bool
		ends     []listEnd
		want     []Time
	}{
		{"each delay, exactly", cron, false, crashes(0, 0, 0, 0, 0), secs(0, 5, 15, 60, 60)},
		{"the delay counts from the spawn", cron, false, crashes(500*ms, 3*sec), secs(0.5, 5)},
		{"a life as long as the delay costs nothing", cron, false, crashes(0, 5*sec, 0, 0), secs(0, 5, 0, 5)},
		{"a shorter one does not start the list again", cron, false, crashes(0, 5*sec-1, 15*sec-1, 60*sec-1, 60*sec, 0), []Time{0, 5 * sec, 15 * sec, 60 * sec, 60 * sec, 0}},
		{"a second always costs nothing where the delay is shorter", List{0, 100 * ms}, false, crashes(0, 0, sec, 0), secs(0, 0.1, 1, 0)},
		{"and less than that is young", List{0, 100 * ms}, false, crashes(sec-1, 0), []Time{sec - 1, 100 * ms}},
		{"before it is ready, any life is young", cron, true, late, secs(2, 5, 15, 60)},
		{"ready in time, 2 s are no young life", List{0, 1}, false, late, secs(2, 2, 2, 2)},
		{"a list that shrinks", List{5 * sec, ms}, false, crashes(0, 0, 0), []Time{5 * sec, ms, ms}},
		{"one delay", List{3 * sec}, false, crashes(0, 0), secs(3, 3)},
		{"empty: no delay", List{}, false, crashes(0, 0, 0), secs(0, 0, 0)},
		{"two clean ends in a row cost nothing", List{2 * sec, 4 * sec}, false, []listEnd{clean, clean, clean, clean, clean}, []Time{ms, ms, 2 * sec, 4 * sec, 4 * sec}},
		{"a crash ends the row of clean ends", List{2 * sec}, false, []listEnd{clean, clean, {}, clean}, []Time{ms, ms, 2 * sec, ms}},
		{"so does a long life", List{2 * sec}, false, []listEnd{clean, clean, {life: 2 * sec}, clean}, []Time{ms, ms, 2 * sec, ms}},
		{"clean ends do not start the list again", List{0, 4 * sec}, false, []listEnd{{}, clean, {}}, []Time{0, ms, 4 * sec}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantAll(t, "gaps", listGaps(t, tt.list, !tt.notReady, tt.ends...), tt.want...)
		})
	}
}

// A crash in a life that is shorter than its delay counts in the row of crashes.
func TestBackoffListAndCrashesInARow(t *testing.T) {
	s := begun(t, Config{Max: 1, ErrRespawn: sec, Backoff: List{0, time.Minute}})
	for _, wanted := range []int{1, 2, 3} {
		s.crash(s.in(0).id)
		want(t, "crashes", s.p.Slot(0).Crashes, wanted)
		for s.in(0) == nil {
			s.until(s.wake)
		}
		s.readyAll()
		s.pass(5 * sec)
	}
}

// A new generation starts the list again, from the last spawn.
func TestBackoffListInNewGeneration(t *testing.T) {
	s := begun(t, Config{Max: 1, ErrRespawn: time.Hour, Backoff: List{2 * sec, time.Minute}})
	s.crash(1)
	s.pass(2 * sec)
	s.crash(2)
	want(t, "Wake in the list", s.wake, 62*sec)
	s.do(Event{Kind: Halt})
	s.do(Event{Kind: Begin})
	want(t, "Wake in the next generation", s.wake, 4*sec)
}

// With a list, failed spawns keep the delays of ErrRespawn: they are never retried
// in a tight loop, whatever the list has.
func TestBackoffListAndFailedSpawns(t *testing.T) {
	s := newSim(t, Config{Max: 1, ErrRespawn: sec, Backoff: List{}})
	s.failing = 3
	s.do(Event{Kind: Begin})
	s.pass(time.Minute)
	wantAll(t, "failed", s.failed, secs(0, 1, 3)...)
}
