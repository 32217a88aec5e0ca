package pool

import (
	"testing"
	"time"
)

// Frozen time does not count for a deadline of a worker, nor of its leftover
// processes.
func TestFrozenMovesDeadlines(t *testing.T) {
	const frozen = 4 * time.Second
	p := New(Config{
		Max: 3, StopTimeout: 2 * time.Second, ReadyTimeout: 3 * time.Second, ErrRespawn: time.Second,
		Stop: 15, Group: true, Surge: 1, Jitter: func() float64 { return 0 },
	})
	p.Apply(0, Event{Kind: Begin})
	for range 3 {
		p.Plan(0)
		p.Apply(0, Event{Kind: Spawned})
	}
	p.Apply(0, Event{Kind: Ready, ID: 1})
	p.Apply(0, Event{Kind: Ready, ID: 2})
	p.Apply(0, Event{Kind: Exited, ID: 2, Leftover: true})
	p.Apply(0, Event{Kind: Halt})
	p.Apply(0, Event{Kind: Resize, N: 1})
	p.stop(0, p.workers[1], 15)
	if !p.Timed() {
		t.Fatal("no deadline runs")
	}
	killed := func(now Time, ev Event) (n int) {
		ev.ReadUpTo = now
		for _, e := range p.Apply(now, ev) {
			if e.Kind == Change && e.To == StateKilled || e.Kind == Leftover && e.To == StateKilled {
				n++
			}
		}
		return n
	}
	if n := killed(time.Second+frozen, Event{Frozen: frozen}); n != 0 {
		t.Errorf("%d killed at the thaw", n)
	}
	if n := killed(frozen+2*time.Second-1, Event{}); n != 0 {
		t.Errorf("%d killed too soon", n)
	}
	if n := killed(frozen+3*time.Second, Event{}); n != 3 {
		t.Errorf("%d killed when their time was over, want 3", n)
	}
}
