package pause

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A worker waits while there is a pause, reports each pause once, and stops
// waiting when its context ends.
func TestCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []int
		s := New(3, func(n int) { reported = append(reported, n) })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		returned := make(chan bool)
		wait := func() {
			go func() { returned <- s.Checkpoint(ctx, nil) }()
			synctest.Wait()
		}
		if !closed(s.Channel(true)) || closed(s.Channel(false)) {
			t.Error("a worker that was started in a pause is not paused")
		}
		wait()
		wait()
		resumed := s.Channel(false)
		s.Set(0)
		for range 2 {
			if !<-returned {
				t.Error("Checkpoint returned false after a pause")
			}
		}
		if !closed(resumed) || closed(s.Channel(true)) {
			t.Error("the pause is over, and the channels do not show it")
		}
		if !s.Checkpoint(ctx, nil) {
			t.Error("Checkpoint returned false without a pause")
		}
		s.Set(4)
		wait()
		s.Set(5) // as if the end of pause 4 had been missed
		synctest.Wait()
		cancel()
		if <-returned {
			t.Error("Checkpoint returned true after the end of the context")
		}
		if want := []int{3, 4, 5}; !slices.Equal(reported, want) {
			t.Errorf("reported %v, want %v", reported, want)
		}
	})
}

// A worker with several activities has paused when all of them that have not
// ended wait, once in each pause.
func TestActivities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []int
		s := New(0, func(n int) { reported = append(reported, n) })
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		wait := func(activities ...*Activity) {
			for _, a := range activities {
				all.Go(func() { s.Checkpoint(ctx, a) })
			}
			synctest.Wait()
		}
		want := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(reported, want) {
				t.Errorf("%s: reported %v, want %v", when, reported, want)
			}
		}
		a, b, c := s.Begin(), s.Begin(), s.Begin()
		s.Set(1)
		wait(a, b)
		want("two of three wait")
		s.End(c)
		s.End(c)
		want("the third has ended", 1)
		s.Set(0)
		all.Wait()
		s.Set(2)
		wait(b)
		want("one of two waits", 1)
		s.Set(0)
		all.Wait()
		wait(a, b) // there is no pause
		want("in no pause", 1)
		s.Set(3)
		wait(b, a)
		want("both wait", 1, 3)
		s.Set(4) // as if the end of pause 3 had been missed
		want("they still wait", 1, 3, 4)
		d := s.Begin()
		s.Set(5)
		want("a new one does not wait", 1, 3, 4)
		s.End(b)
		wait(d)
		want("all that have not ended wait", 1, 3, 4, 5)
		cancel()
		all.Wait()
		if s.waiting != 0 || s.activities != 2 {
			t.Errorf("%d of %d wait", s.waiting, s.activities)
		}
	})
}

// BenchmarkCheckpoint measures the cost of each job while there is no pause: no
// system call, no allocation.
func BenchmarkCheckpoint(b *testing.B) {
	s := New(0, func(int) {})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if !s.Checkpoint(ctx, nil) {
			b.Fatal("Checkpoint returned false")
		}
	}
}
