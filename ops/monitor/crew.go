package monitor

import (
	"sync"
	"time"
)

const (
	// crewSize is how many functions of a crew run at a time. Each can take a thread
	// while it waits for a disk.
	crewSize = 4

	// hangs is the time after which a function of a crew counts as one that hangs. On
	// a machine that is only busy it should not pass.
	hangs = 500 * time.Millisecond

	// moment is how long a client waits for a disk.
	moment = 100 * time.Millisecond
)

// A crew calls functions that wait for disks: a few at a time, because a thread is
// never given back. Another one takes the place of one that hangs. The zero value is
// ready for use, and there is no goroutine while there is nothing to do.
type crew struct {
	mu   sync.Mutex
	jobs []func()
	busy int // goroutines, except those whose function hangs
}

// put has a function called soon.
func (c *crew) put(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs = append(c.jobs, f)
	c.more()
}

// more starts a goroutine if there is work for it.
func (c *crew) more() {
	if len(c.jobs) > 0 && c.busy < crewSize {
		c.busy++
		go c.work()
	}
}

func (c *crew) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.jobs) > 0 {
		f := c.jobs[0]
		c.jobs = c.jobs[1:]
		done, replaced := false, false
		limit := time.AfterFunc(hangs, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !done {
				replaced = true
				c.busy--
				c.more()
			}
		})
		c.mu.Unlock()
		f()
		c.mu.Lock()
		done = true
		limit.Stop()
		if replaced {
			return
		}
	}
	c.jobs = nil
	c.busy--
}

// A queue calls functions in order, one at a time.
type queue struct {
	crew *crew // nil for a goroutine of its own

	mu      sync.Mutex
	calls   []func()
	running bool
}

// put has a function called after those that were put before.
func (q *queue) put(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, f)
	switch {
	case q.running:
		return
	case q.crew == nil:
		go q.run()
	default:
		q.crew.put(q.run)
	}
	q.running = true
}

// len returns how many functions wait behind the one that is being called.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.calls)
}

func (q *queue) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.calls) > 0 {
		f := q.calls[0]
		q.calls = q.calls[1:]
		q.mu.Unlock()
		f()
		q.mu.Lock()
		if q.crew != nil && len(q.calls) > 0 {
			q.crew.put(q.run) // after those of other queues
			return
		}
	}
	q.calls, q.running = nil, false
}

// call is put, and returns after the function has returned.
func (q *queue) call(f func()) {
	done := make(chan struct{})
	q.put(func() {
		f()
		close(done)
	})
	<-done
}

// wait returns after all functions have returned that were put before.
func (q *queue) wait() { q.call(func() {}) }
