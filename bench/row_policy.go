//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/pool"
)

// policy measures the cost of an event in the policy. In each life a worker
// exits, its slot is spawned, and the new worker becomes ready.
func policy(r *run) error {
	rounds, lives := r.rounds(40, 4), 20_000
	r.bounds("%d rounds of %d lives of workers in random slots, in this process; processor time of its thread", rounds, lives)
	sizes := []int{10, 100, 1000, 10_000}
	pools := make([]*fullPool, len(sizes))
	for i, n := range sizes {
		pools[i] = newFullPool(n)
		pools[i].took = r.series("", fmt.Sprintf("%d slots", n), "", inNanos)
	}
	for round := range rounds {
		for _, p := range turns(round, pools) {
			p.took.add(p.measure(lives))
		}
	}
	for _, p := range pools[1:] {
		var g *goal
		if p == pools[len(pools)-1] {
			g = atMost(1.5)
		}
		r.ratio(p.took, pools[0].took, g)
	}
	return nil
}

// fullPool is a policy with a worker in each slot.
type fullPool struct {
	pool  *pool.Pool
	ids   []int // of the worker in each slot
	order []int // slots, in the order in which their workers exit
	next  int
	now   pool.Time
	took  *series
}

func newFullPool(n int) *fullPool {
	l := &fullPool{ids: make([]int, n), order: rand.New(rand.NewPCG(1, 2)).Perm(n)}
	l.pool = pool.New(pool.Config{
		Max: n, Surge: 1, ErrRespawn: time.Second, StopTimeout: 30 * time.Second, Stop: syscall.SIGTERM, Jitter: rand.Float64,
	})
	l.pool.Apply(0, pool.Event{Kind: pool.Begin})
	for step := l.pool.Plan(0); step.SpawnDue; step = l.pool.Plan(0) {
		l.ids[step.Slot] = step.Ordinal
		l.pool.Apply(0, pool.Event{Kind: pool.Spawned, Ready: true})
	}
	return l
}

// measure replaces n workers and returns the nanoseconds for each of the three
// events.
func (l *fullPool) measure(n int) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := processorTime()
	for range n {
		slot := l.order[l.next]
		l.next = (l.next + 1) % len(l.order)
		l.now += 10 * pool.Time(time.Second)
		l.pool.Apply(l.now, pool.Event{Kind: pool.Exited, ID: l.ids[slot], Clean: true})
		id := l.pool.Plan(l.now).Ordinal
		l.pool.Apply(l.now, pool.Event{Kind: pool.Spawned})
		l.pool.Apply(l.now, pool.Event{Kind: pool.Ready, ID: id})
		l.ids[slot] = id
	}
	return float64(processorTime()-began) / float64(3*n)
}

// processorTime is what this thread has used: what else runs on the machine does not count.
func processorTime() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now) // fails for no clock that there is
	return time.Duration(now.Nano())
}
