//go:build unix

package prefork

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

func (r *rig) paused() (n int) {
	for _, w := range r.Snapshot().Workers {
		if w.Paused {
			n++
		}
	}
	return n
}

// Who is paused is who has said so, of the pause that is in force; who is spawned meanwhile begins paused.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2}, nil, nil)
		done := r.startAgain()
		time.Sleep(2 * boot)
		say := func(i int, msg wire.Message) {
			r.process(i).Say(wire.Append(nil, msg))
			synctest.Wait()
		}
		want := func(when string, pausing bool, paused int, all bool) {
			t.Helper()
			synctest.Wait()
			s := r.Snapshot()
			if s.Pausing != pausing || r.paused() != paused || s.AllPaused() != all {
				t.Errorf("%s: %v, all paused %t; want pausing %t, %d paused, all %t", when, s, s.AllPaused(), pausing, paused, all)
			}
		}
		want("at first", false, 0, false)
		r.Pause()
		r.Pause()
		want("told", true, 0, false)
		say(1, wire.Paused{N: 1})
		say(1, wire.Paused{N: 1})
		want("one has paused", true, 1, false)
		say(2, wire.Paused{N: 1})
		want("all have paused", true, 2, true)
		r.process(2).Exit(proc.Status{})
		synctest.Wait()
		time.Sleep(2 * boot)
		want("one is new", true, 1, false)
		if env := strings.Join(r.process(3).Spec.Env, " "); !strings.Contains(env, ";pause=1;") {
			t.Errorf("the new one's marker: %s", env)
		}
		say(3, wire.Paused{N: 1})
		want("the new one has paused", true, 2, true)
		r.Resume()
		want("resumed", false, 0, false)
		say(1, wire.Paused{N: 1})
		want("late word of the first pause", false, 0, false)
		r.Pause()
		synctest.Wait()
		say(1, wire.Paused{N: 1})
		want("later word of it", true, 0, false)
		say(1, wire.Paused{N: 2})
		want("word of the second", true, 1, false)
		r.Resume()
		r.Pause()
		r.Resume()
		synctest.Wait()
		// Who waits for the end of a pause that is over has not been told, say while it was stopped: it is told again.
		if got, want := r.told(1), []wire.Message{wire.Pause{N: 1}, wire.Resume{}, wire.Resume{}, wire.Pause{N: 2}, wire.Pause{N: 2}, wire.Resume{}}; !slices.Equal(got, want) {
			t.Errorf("worker 1 was told %v, want %v", got, want)
		}
		if n := r.count(", paused"); n != 4 {
			t.Errorf("%d times a worker paused: %q", n, r.eventLog())
		}
		r.Deliver(term)
		<-done
	})
}

// What a worker knows of pauses: it waits while there is one, says so once for each, and ends with its context.
func TestCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		p.begin(3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var said []int
		waits := make(chan bool)
		wait := func() {
			go func() {
				p.wait(ctx, nil, func(n int) { said = append(said, n) })
				waits <- true
			}()
			synctest.Wait()
		}
		closed := func(c <-chan struct{}) bool {
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		if !closed(p.channel(true)) || closed(p.channel(false)) || !p.asked.Load() {
			t.Error("a worker that begins paused does not know")
		}
		wait()
		wait()
		resumed := p.channel(false)
		p.set(0)
		<-waits
		<-waits
		if !closed(resumed) || closed(p.channel(true)) || p.asked.Load() {
			t.Error("it does not know that the pause is over")
		}
		p.wait(ctx, nil, func(int) { t.Error("waits without a pause") })
		p.set(4)
		wait()
		p.set(5) // as if a Resume had been missed
		synctest.Wait()
		cancel()
		<-waits
		if want := []int{3, 4, 5}; !slices.Equal(said, want) {
			t.Errorf("said %v, want %v", said, want)
		}
	})
}

// A worker of several parts has paused when all wait that have not ended, once in each pause.
func TestActivities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		p.begin(0)
		ctx, cancel := context.WithCancel(t.Context())
		var said []int
		say := func(n int) { said = append(said, n) }
		part := func() *Activity { p.parts++; return &Activity{} }
		var all sync.WaitGroup
		wait := func(parts ...*Activity) {
			for _, part := range parts {
				all.Go(func() { p.wait(ctx, part, say) })
			}
			synctest.Wait()
		}
		want := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(said, want) {
				t.Errorf("%s: said %v, want %v", when, said, want)
			}
		}
		a, b, c := part(), part(), part()
		p.set(1)
		wait(a, b)
		want("two of three wait")
		p.end(c, say)
		p.end(c, say)
		want("the third has ended", 1)
		p.set(0)
		all.Wait()
		p.set(2)
		wait(b)
		want("one of two waits", 1)
		p.set(0)
		all.Wait()
		wait(a, b) // there is no pause
		want("in no pause", 1)
		p.set(3)
		wait(b, a)
		want("both wait", 1, 3)
		p.set(4) // as if a Resume had been missed
		want("they wait on", 1, 3, 4)
		d := part()
		p.set(5)
		want("a new one does not wait", 1, 3, 4)
		p.end(b, say)
		wait(d)
		want("all that are left wait", 1, 3, 4, 5)
		cancel()
		all.Wait()
		if p.waiting != 0 || p.parts != 2 {
			t.Errorf("%d of %d wait", p.waiting, p.parts)
		}
	})
}

// BenchmarkCheckpoint is what a worker pays for each job while there is no pause: no system call, nothing allocated.
func BenchmarkCheckpoint(b *testing.B) {
	var p process
	p.pauses.begin(0)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if !p.checkpoint(ctx) {
			b.Fatal("told to stop")
		}
	}
}
