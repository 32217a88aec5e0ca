package sockets

import (
	"slices"
	"testing"
	"time"
)

// A group with as many slots as workers, whose IDs are their slots plus 1.
type failing struct {
	t     *testing.T
	set   *Set
	ready []Worker
}

func newFailing(t *testing.T, n int, slots ...int) *failing {
	set := newSet(t, Config{MaxWorkers: func() int { return n }})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	f := &failing{t: t, set: set}
	for _, slot := range slots {
		f.ready = append(f.ready, Worker{ID: slot + 1, Slot: slot, Accepting: []int{0}})
	}
	return f
}

// want steers, and checks the slots that get connections, the adopters, and the
// time of the next Steer.
func (f *failing) want(what string, now time.Duration, live, adopters []int, again time.Duration) {
	f.t.Helper()
	moves, due := f.set.Steer(now, f.ready)
	for _, m := range moves {
		f.set.Moved(m)
	}
	if g := f.set.groups()[0]; !slices.Equal(g.live, live) || !slices.Equal(g.adopters, adopters) || due != again {
		f.t.Errorf("%s: live %v, adopters %v, again at %v, want %v, %v, %v", what, g.live, g.adopters, due, live, adopters, again)
	}
}

func (f *failing) wantFirst(what string, got, want bool) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("%s is the first failure: %t, want %t", what, got, want)
	}
}

// A worker that cannot accept gets no connections, and another serves its queue,
// for a time that doubles while it fails again.
func TestAcceptFailed(t *testing.T) {
	f := newFailing(t, 2, 0, 1)
	f.want("at first", 0, []int{0, 1}, []int{0, 0}, Never)
	f.wantFirst("the first", f.set.AcceptFailed(0, 0, 2), true)
	f.want("failed", 0, []int{0}, []int{0, 1}, minBackoff)
	f.wantFirst("a late report", f.set.AcceptFailed(minBackoff-1, 0, 2), false)
	f.wantFirst("one of another kind", f.set.AdoptFailed(minBackoff-1, 0, 0, 2), false)
	f.want("waits", minBackoff-1, []int{0}, []int{0, 1}, minBackoff)
	f.want("tries again", minBackoff, []int{0, 1}, []int{0, 0}, Never)
	now := minBackoff
	for delay := 2 * minBackoff; delay < 2*maxBackoff; delay *= 2 {
		f.wantFirst("again", f.set.AcceptFailed(now, 0, 2), false)
		f.want("failed again", now, []int{0}, []int{0, 1}, now+min(delay, maxBackoff))
		now += min(delay, maxBackoff)
	}
	now += resetBackoff
	f.wantFirst("after a while", f.set.AcceptFailed(now, 0, 2), true)
	f.want("after a while", now, []int{0}, []int{0, 1}, now+minBackoff)
	f.ready = f.ready[:1]
	f.want("it has exited", now, []int{0}, []int{0, 1}, Never)
	if n := len(f.set.groups()[0].backoffs); n != 0 {
		t.Errorf("%d backoffs of workers that have exited", n)
	}
	f.wantFirst("a group that does not exist", f.set.AcceptFailed(now, 1, 1) || f.set.AdoptFailed(now, 1, 0, 1), false)
}

// If no worker can accept, all get connections.
func TestAllAcceptFailed(t *testing.T) {
	f := newFailing(t, 3, 0, 1)
	f.want("at first", 0, []int{0, 1}, []int{0, 0, 1}, Never)
	f.set.AcceptFailed(0, 0, 1)
	f.want("one", 0, []int{1}, []int{2, 0, 2}, minBackoff)
	f.set.AcceptFailed(1, 0, 2)
	f.want("both", 1, []int{0, 1}, []int{0, 0, 2}, minBackoff)
	f.want("the first tries again", minBackoff, []int{0}, []int{0, 1, 1}, minBackoff+1)
}

// A worker that cannot adopt accepts on its own socket. A socket that no worker can
// adopt is offered again.
func TestAdoptFailed(t *testing.T) {
	f := newFailing(t, 3, 0, 1)
	f.want("at first", 0, []int{0, 1}, []int{0, 0, 1}, Never)
	f.wantFirst("the first", f.set.AdoptFailed(0, 0, 2, 1), true)
	f.want("another has it", 0, []int{0, 1}, []int{0, 0, 2}, minBackoff)
	f.wantFirst("a report of a socket that it had before", f.set.AdoptFailed(1, 0, 2, 1), false)
	if moves, _ := f.set.Steer(1, f.ready); moves != nil {
		t.Errorf("moves after that: %v", moves)
	}
	f.wantFirst("the other", f.set.AdoptFailed(2, 0, 2, 2), true)
	f.want("none can", 2, []int{0, 1}, []int{0, 0, 0}, minBackoff)
	f.want("the first tries again", minBackoff, []int{0, 1}, []int{0, 0, 1}, minBackoff+2)
	f.wantFirst("accepting fails too", f.set.AcceptFailed(minBackoff, 0, 1), false)
	f.want("accepting fails too", minBackoff, []int{1}, []int{0, 0, 1}, minBackoff+2)
	f.want("the second can", minBackoff+2, []int{1}, []int{2, 0, 2}, 3*minBackoff)
	f.wantFirst("it cannot adopt again", f.set.AdoptFailed(3*minBackoff, 0, 2, 1), false)
	f.wantFirst("nor accept", f.set.AcceptFailed(3*minBackoff+1, 0, 1), false)
	f.want("neither", 3*minBackoff+1, []int{1}, []int{2, 0, 2}, 11*minBackoff+1)
	f.wantFirst("a slot that does not exist", f.set.AdoptFailed(20*minBackoff, 0, 9, 2), false)
}
