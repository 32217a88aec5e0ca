//go:build unix

package manager_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
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

// A worker counts as paused after it has confirmed the current pause. A worker
// that is spawned during a pause starts paused.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, nil)
		done := r.startLoop()
		time.Sleep(2 * boot)
		confirm := func(i int, msg wire.Message) {
			send(r.process(i), msg)
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
		want("asked to pause", true, 0, false)
		confirm(1, wire.Paused{N: 1})
		confirm(1, wire.Paused{N: 1})
		want("one worker has paused", true, 1, false)
		confirm(2, wire.Paused{N: 1})
		want("all have paused", true, 2, true)
		r.process(2).Exit(proc.Status{})
		synctest.Wait()
		time.Sleep(2 * boot)
		want("one worker is new", true, 1, false)
		if env := strings.Join(r.process(3).Spec.Env, " "); !strings.Contains(env, ";pause=1;") {
			t.Errorf("the new one's marker: %s", env)
		}
		confirm(3, wire.Paused{N: 1})
		want("the new one has paused", true, 2, true)
		r.Resume()
		want("resumed", false, 0, false)
		confirm(1, wire.Paused{N: 1})
		want("late confirmation of the first pause", false, 0, false)
		r.Pause()
		synctest.Wait()
		confirm(1, wire.Paused{N: 1})
		want("later confirmation of it", true, 0, false)
		confirm(1, wire.Paused{N: 2})
		want("confirmation of the second", true, 1, false)
		r.Resume()
		r.Pause()
		r.Resume()
		synctest.Wait()
		// A worker that confirms a pause which is over has missed the Resume,
		// perhaps while it was suspended. The manager sends it again.
		if got, want := r.messages(1), []wire.Message{wire.Pause{N: 1}, wire.Resume{}, wire.Resume{}, wire.Pause{N: 2}, wire.Pause{N: 2}, wire.Resume{}}; !slices.Equal(got, want) {
			t.Errorf("worker 1 received %v, want %v", got, want)
		}
		if n := r.count(", paused"); n != 4 {
			t.Errorf("%d times a worker paused: %q", n, r.eventLog())
		}
		r.Deliver(term)
		<-done
	})
}
