package prefork

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/wire"
)

// Pausing is cooperative: the manager asks, a worker waits when it comes to its checkpoint, and says so. It is
// asked by a message, which sets a word in its memory, so that a checkpoint that is passed costs no system call.

// Pause tells the workers to pause: each goes on until it comes to Worker.Checkpoint, waits there, and then counts as paused,
// in Snapshot and by a PausedEvent. Workers that are spawned meanwhile begin paused. A worker that never comes to a checkpoint
// does not pause, and neither does a Command. All else goes on: workers are respawned, reloaded, told to stop. Manager
// only, in a worker it does nothing; any goroutine; it does not block: the workers are told at the loop's next turn. Calling it again
// does nothing.
//
// A successor (see Upgrade) does not begin paused: the program decides anew.
func (m *Manager) Pause() { m.setPaused(true) }

// Resume has the workers go on, as Pause had them wait.
func (m *Manager) Resume() { m.setPaused(false) }

func (m *Manager) setPaused(paused bool) {
	if self.role == inherit.Worker {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = paused
	m.inbox.put(func(*inbox) {})
}

// tellPause brings what Pause and Resume have said to the workers.
func (m *Manager) tellPause() {
	m.mu.Lock()
	paused := m.paused
	if paused == (m.pausing != 0) {
		m.mu.Unlock()
		return
	}
	m.pausing = 0
	if paused {
		m.pauses++
		m.pausing = m.pauses
	}
	for _, c := range m.children {
		c.Paused = false
	}
	m.mu.Unlock()
	if paused {
		m.changed(PauseEvent{})
	} else {
		m.changed(ResumeEvent{})
	}
	for _, c := range m.children {
		if c.unread != nil {
			m.tellPausing(c)
		}
	}
}

func (m *Manager) tellPausing(c *child) {
	msg := wire.Message(wire.Resume{})
	if m.pausing != 0 {
		msg = wire.Pause{N: m.pausing}
	}
	if _, err := c.proc.Write(wire.Append(nil, msg)); err != nil && !hungUp(err) && !c.deaf {
		c.deaf = true // it may go on asking, and is not to fill the log
		m.log.Error("worker cannot be told to pause or to go on", c.attrs("err", err)...)
	}
}

// hasPaused notes that a worker waits. What is said of a pause that is over does not count, and who says it is told again how
// things stand: a worker that was stopped (SIGSTOP) for long has a full socket, in which the end of that pause had no room.
func (m *Manager) hasPaused(c *child, n int) {
	if n != m.pausing {
		m.tellPausing(c)
		return
	}
	if c.Paused {
		return
	}
	m.mu.Lock()
	c.Paused = true
	info := c.WorkerInfo
	m.mu.Unlock()
	m.changed(PausedEvent{Worker: info})
}

// AllPaused tells whether every worker that is starting or ready has paused. Standbys do nothing anyway.
func (s Snapshot) AllPaused() bool {
	for _, w := range s.Workers {
		if w.Slot != noSlot && (w.State == StateStarting || w.State == StateReady) && !w.Paused {
			return false
		}
	}
	return s.Pausing
}

// Checkpoint is where a worker pauses (Manager.Pause): it is to be called between two requests or jobs, when there is
// nothing that the worker has begun and not finished. It is true at once if there is no pause, else when the pause is over;
// it is false when the worker should end, as Context says. So it is the condition of a worker's loop:
//
//	for w.Checkpoint() {
//		// the next job
//	}
//
// Without a pause it makes no system call: it loads a word of memory and looks at Context. Any goroutine; but where several do the worker's work, it
// is for the one that knows that all have finished, or each has an Activity. A worker that waits for something else meanwhile, such as the next
// connection, selects on Pausing too.
func (w *Worker) Checkpoint() bool { return self.checkpoint(w.Context()) }

func (p *process) checkpoint(ctx context.Context) bool {
	if p.pauses.asked.Load() {
		p.pauses.wait(ctx, nil, p.sayPaused)
	}
	return ctx.Err() == nil
}

func (p *process) activityCheckpoint(ctx context.Context, t *Activity) bool {
	if p.pauses.asked.Load() {
		p.pauses.wait(ctx, t, p.sayPaused)
	}
	return ctx.Err() == nil
}

func (p *process) sayPaused(n int) {
	p.control.Write(wire.Append(nil, wire.Paused{N: n})) // fails only when the manager is gone, which watch sees
}

// Pausing returns a channel that is closed when the worker is told to pause. After the pause there is another: ask anew
// each time. Any goroutine; it does not block.
func (w *Worker) Pausing() <-chan struct{} { return self.pauses.channel(true) }

// Resumed returns a channel that is closed while there is no pause, or when it is over; as Pausing.
func (w *Worker) Resumed() <-chan struct{} { return self.pauses.channel(false) }

// pauses is what a worker knows of the pause that it was told of.
type pauses struct {
	asked atomic.Bool

	mu      sync.Mutex
	n       int           // of the pause in force; 0 for none
	said    int           // the last one that the manager was told of
	changed chan struct{} // closed when it begins or ends
	now     chan struct{} // closed
	parts   int           // that have not ended
	waiting int           // of these
}

// begin is for the start of a worker.
func (p *pauses) begin(n int) {
	p.changed, p.now = make(chan struct{}), make(chan struct{})
	close(p.now)
	p.set(n)
}

func (p *pauses) pause(n int) { p.set(n) }
func (p *pauses) resume()     { p.set(0) }

func (p *pauses) set(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n != p.n {
		p.n = n
		p.asked.Store(n != 0)
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// channel is closed when there is a pause, or when there is none.
func (p *pauses) channel(paused bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (p.n != 0) == paused {
		return p.now
	}
	return p.changed
}

// wait waits until there is no pause, and says of which it waits for: for the whole worker, or for a part.
func (p *pauses) wait(ctx context.Context, t *Activity, say func(n int)) {
	for {
		p.mu.Lock()
		n, changed := p.n, p.changed
		switch {
		case t != nil:
			p.setWaits(t, n != 0)
			p.sayIfAll(say)
		case n != 0 && n != p.said:
			p.said = n
			say(n)
		}
		p.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if t != nil {
				p.mu.Lock()
				p.setWaits(t, false)
				p.mu.Unlock()
			}
			return
		}
	}
}

// Activity is one of several things that a worker does at a time: a server on each of two sockets, or a server and a consumer of a
// queue. Each has a checkpoint of its own, and the worker has paused (Manager.Pause) when all of them wait there.
// preforkhttp.Serve is a part by itself. A worker that does one thing needs none: Worker.Checkpoint is for the whole of it.
type Activity struct {
	w     *Worker
	waits bool // guarded by pauses.mu, as is ended
	ended bool
}

// Activity begins an activity of this worker's work, which lasts until its End. Worker, any goroutine; it does not block.
func (w *Worker) Activity() *Activity {
	p := &self.pauses
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts++
	return &Activity{w: w}
}

// Checkpoint is Worker.Checkpoint for this part: it says that the worker has paused only when all others wait too, or have
// ended. It is to be called by one goroutine at a time.
func (t *Activity) Checkpoint() bool { return self.activityCheckpoint(t.w.Context(), t) }

// End says that there is nothing more to be waited for from this part. A second call does nothing. Any goroutine; it does not block.
func (t *Activity) End() { self.pauses.end(t, self.sayPaused) }

func (p *pauses) end(t *Activity, say func(n int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	p.parts--
	if t.waits {
		p.waiting--
	}
	p.sayIfAll(say)
}

// setWaits counts a part as waiting, or no longer; one that has ended does not count.
func (p *pauses) setWaits(t *Activity, waits bool) {
	if t.waits == waits {
		return
	}
	t.waits = waits
	switch {
	case t.ended:
	case waits:
		p.waiting++
	default:
		p.waiting--
	}
}

// sayIfAll says that the worker has paused, once in each pause, where all parts wait.
func (p *pauses) sayIfAll(say func(n int)) {
	if p.n != 0 && p.n != p.said && p.parts > 0 && p.waiting == p.parts {
		p.said = p.n
		say(p.n)
	}
}
