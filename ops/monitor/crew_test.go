package monitor

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A crew calls a few functions at a time. Those that hang are replaced after a while,
// and count again for nothing when they return.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		var running, called atomic.Int32
		answer := make(chan struct{})
		wait := func() {
			running.Add(1)
			<-answer
			running.Add(-1)
			called.Add(1)
		}
		for range 3 * crewSize {
			c.put(wait)
		}
		for i := range int32(3) {
			synctest.Wait()
			if n := running.Load(); n != (i+1)*crewSize {
				t.Errorf("after %d times the patience %d functions run, want %d", i, n, (i+1)*crewSize)
			}
			time.Sleep(hangs + 1)
		}
		c.put(func() { called.Add(1) })
		synctest.Wait()
		if called.Load() != 1 {
			t.Error("functions that hang hold up another one")
		}
		close(answer)
		synctest.Wait()
		if n := called.Load(); n != 3*crewSize+1 || c.busy != 0 || c.jobs != nil {
			t.Errorf("%d were called; %d goroutines and %d functions are left", n, c.busy, len(c.jobs))
		}
		answer = make(chan struct{})
		for range 3 * crewSize {
			c.put(wait)
		}
		synctest.Wait()
		if n := running.Load(); n != crewSize {
			t.Errorf("later %d functions run, want %d", n, crewSize)
		}
		close(answer)
	})
}

// A queue keeps the order, by a crew and without; another queue does not wait for it.
func TestQueue(t *testing.T) {
	for name, q := range map[string]*queue{"crew": {crew: new(crew)}, "own": {}} {
		t.Run(name, func(t *testing.T) {
			other := &queue{crew: q.crew}
			var got []int
			answer := make(chan struct{})
			q.put(func() { <-answer })
			for i := range 100 {
				q.put(func() { got = append(got, i) })
				if i%10 == 0 {
					runtime.Gosched()
				}
			}
			other.wait()
			close(answer)
			q.wait()
			if len(got) != 100 || !slices.IsSorted(got) {
				t.Errorf("order %v", got)
			}
		})
	}
}
