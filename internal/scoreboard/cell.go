package scoreboard

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// A Cell is a worker's cell as the manager has it. Its methods may be called from any goroutine of the manager; none
// blocks.
type Cell struct {
	mu     sync.Mutex // for what is below, and against Close while the memory is read
	unmap  func() error
	page   *page  // nil once it is closed
	last   Status // the last one read
	failed bool   // it is damaged
}

// New makes the anonymous file at fd, which must be empty, a cell, and maps it. Manager. The worker is to inherit the
// descriptor; it stays the caller's, who can close it as soon as the worker was spawned.
func New(fd int) (*Cell, error) {
	if err := prepare(fd); err != nil {
		return nil, fmt.Errorf("scoreboard: a new cell: %w", err)
	}
	p, unmap, err := mapPage(fd)
	if err != nil {
		return nil, fmt.Errorf("scoreboard: a new cell: %w", err)
	}
	c := &Cell{page: p, unmap: unmap}
	// The first touch, by which the memory is allocated: it fails where there is none left.
	if !c.touch(func() { p.layout.Store(layout) }) {
		c.Close()
		return nil, fmt.Errorf("scoreboard: a new cell: there is no room for it")
	}
	return c, nil
}

// Close lets go of the memory. A closed cell reads as that of a worker that has published nothing. Closing again does
// nothing.
func (c *Cell) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil {
		return
	}
	c.page, c.last = nil, Status{C: None}
	c.unmap() // fails only for memory that was not mapped
}

// Read is what the worker has published. The counts are read one after the other, while the worker goes on.
func (c *Cell) Read() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil {
		return Status{C: None}
	}
	c.read()
	return c.last
}

// read reads into last. The caller holds mu, and the cell is not closed.
func (c *Cell) read() {
	if c.failed {
		return
	}
	var state, served, beats uint64
	ok := c.touch(func() {
		state, served, beats = c.page.state.Load(), c.page.served.Load(), c.page.beats.Load()
	})
	status, good := statusOf(state)
	if !ok || !good || served > maxCount || served < c.last.Served {
		c.damaged()
		return
	}
	c.last = Status{C: status, Served: served, Beats: beats, Changes: state / oneChange}
}

func (c *Cell) damaged() {
	c.failed = true
	c.last.C, c.last.Damaged = '?', true
}

// touch runs f, which reads or writes the memory, and tells whether that can be done: it cannot where a worker has
// truncated a file that could not be sealed, or the system has no memory for it.
func (c *Cell) touch(f func()) (ok bool) {
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

// armTries bounds what a worker that changes its status without end can do to the manager.
const armTries = 100

// arm gives the cell the bell that fits the status of its worker, if that one is wanted, and else none. It returns whether
// the worker was busy in that moment. A cell that is damaged, or closed, or never stays the same is left as it is, and
// busy.
func (c *Cell) arm(low, high bool) (busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil || c.failed {
		return true
	}
	busy = true
	c.touch(func() {
		for range armTries {
			old := c.page.state.Load()
			status, good := statusOf(old)
			if !good {
				return
			}
			next := old &^ bells
			if isBusy(status) && high {
				next |= bellHigh
			} else if !isBusy(status) && low {
				next |= bellLow
			}
			if next == old || c.page.state.CompareAndSwap(old, next) {
				busy = isBusy(status)
				return
			}
		}
	})
	return busy
}

// armed is the bell that the cell has.
func (c *Cell) armed() (bell uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil || c.failed {
		return 0
	}
	c.touch(func() {
		if state := c.page.state.Load(); state&bells != 0 {
			if _, good := statusOf(state); good {
				bell = state & bells
			}
		}
	})
	return bell
}
