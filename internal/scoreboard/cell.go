package scoreboard

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A Cell is the manager's side of a worker's cell. Its methods are safe for
// concurrent use and do not block.
type Cell struct {
	mu     sync.Mutex // guards the fields below; Close must not unmap memory in use
	unmap  func() error
	page   *page  // nil after Close
	last   Status // from the last read
	failed bool   // the cell is damaged
}

// New turns the anonymous file at fd, which must be empty, into a cell and maps
// it. The manager calls it. The worker should inherit the descriptor. The
// caller keeps it and can close it once the worker was spawned.
func New(fd int) (*Cell, error) {
	if err := prepare(fd); err != nil {
		return nil, fmt.Errorf("scoreboard: new cell: %w", err)
	}
	p, unmap, err := mapPage(fd)
	if err != nil {
		return nil, fmt.Errorf("scoreboard: new cell: %w", err)
	}
	c := &Cell{page: p, unmap: unmap}
	// The first access allocates the memory and fails if none is left.
	if !c.access(func() { p.layout.Store(layout) }) {
		c.Close()
		return nil, errors.New("scoreboard: new cell: out of memory")
	}
	return c, nil
}

// Close unmaps the memory. A closed cell reads as one in which the worker has
// published nothing. A second Close is a no-op.
func (c *Cell) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil {
		return
	}
	c.page, c.last = nil, Status{C: None}
	c.unmap() // fails only for memory that is not mapped
}

// Read returns the status that the worker has published. It reads the counters
// one after the other, while the worker may change them.
func (c *Cell) Read() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil {
		return Status{C: None}
	}
	c.read()
	return c.last
}

// read updates c.last. The caller must hold mu, and page must not be nil.
func (c *Cell) read() {
	if c.failed {
		return
	}
	var state, served, heartbeats, context uint64
	ok := c.access(func() {
		state, served, heartbeats = c.page.state.Load(), c.page.served.Load(), c.page.heartbeats.Load()
		context = c.page.context.Load()
	})
	status, valid := statusOf(state)
	if !ok || !valid || served > maxCount || served < c.last.Served {
		c.failed = true
		c.last.C, c.last.Damaged = '?', true
		return
	}
	c.last = Status{C: status, Served: served, Heartbeats: heartbeats, Changes: state / oneChange, Context: context != 0}
}

// access runs f, which reads or writes the memory, and reports whether the
// memory was accessible. It is not if a worker has truncated a file that could
// not be sealed, or if the system has no memory for the page.
func (c *Cell) access(f func()) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			ok = false
		}
	}()
	f()
	return true
}

// armTries limits the work that a worker can cause by endless changes of its
// status.
const armTries = 100

// arm sets the notify bit that fits the status of the worker, if it is wanted,
// and clears the other. It returns whether the worker was busy at that moment.
// A cell that is closed, damaged or changes without end is not armed and counts
// as busy.
func (c *Cell) arm(low, high bool) (busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil || c.failed {
		return true
	}
	busy = true
	c.access(func() { busy = c.page.arm(low, high) })
	return busy
}

func (p *page) arm(low, high bool) bool {
	for range armTries {
		old := p.state.Load()
		status, valid := statusOf(old)
		if !valid {
			return true
		}
		next, busy := old&^notifyBits, isBusy(status)
		switch {
		case busy && high:
			next |= notifyIdle
		case !busy && low:
			next |= notifyBusy
		}
		if next == old || p.state.CompareAndSwap(old, next) {
			return busy
		}
	}
	return true
}

// armed returns the notify bits of the cell.
func (c *Cell) armed() (bits uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil || c.failed {
		return 0
	}
	c.access(func() {
		state := c.page.state.Load()
		if state&notifyBits == 0 {
			return
		}
		if _, valid := statusOf(state); valid {
			bits = state & notifyBits
		}
	})
	return bits
}
