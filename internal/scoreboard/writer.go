package scoreboard

import (
	"errors"
	"fmt"
)

// A Writer is the worker's side of its cell. Its methods are safe for
// concurrent use. They make no system call except in notify, allocate nothing
// and never block. On a nil Writer, for a process without a cell, they are
// no-ops.
type Writer struct {
	page   *page
	notify func()
}

// Open maps the cell at descriptor fd, which the manager made with New. The
// worker calls it. The caller keeps the descriptor and should close it; the
// mapping lasts as long as the process. Set calls notify, in its own goroutine,
// if the manager must be woken. notify must not block. It may drop the message
// if the socket is full: the manager then reads the board after the messages
// that fill it.
func Open(fd int, notify func()) (*Writer, error) {
	if err := check(fd); err != nil {
		return nil, fmt.Errorf("scoreboard: descriptor %d: %w", fd, err)
	}
	p, unmap, err := mapPage(fd)
	if err != nil {
		return nil, fmt.Errorf("scoreboard: descriptor %d: %w", fd, err)
	}
	if err := checkLayout(p.layout.Load()); err != nil {
		return nil, errors.Join(fmt.Errorf("scoreboard: descriptor %d: %w", fd, err), unmap())
	}
	return &Writer{page: p, notify: notify}, nil
}

var errNotCell = errors.New("not a cell made by a manager")

func checkLayout(got uint64) error {
	switch {
	case got == layout:
		return nil
	case got>>8 == layout>>8:
		return fmt.Errorf("the manager's cells have layout %d, this program's %d: both must use the same version of the library", got&0xff, layout&0xff)
	}
	return errNotCell
}

// Set publishes the status: Idle, or any other byte except None for busy. It
// counts as a heartbeat.
func (w *Writer) Set(c byte) {
	if w == nil {
		return
	}
	disarm := notifyBusy
	if !isBusy(c) {
		disarm = notifyIdle
	}
	for {
		old := w.page.state.Load()
		next := old&^(statusByte|disarm) + oneChange | statusSet | uint64(c)
		if w.page.state.CompareAndSwap(old, next) {
			if old&disarm != 0 {
				w.notify()
			}
			return
		}
	}
}

// Served counts n requests and returns the total. It counts as a heartbeat. If
// n is 0 or less, it is only a heartbeat.
func (w *Writer) Served(n int) (total uint64) {
	switch {
	case w == nil:
		return 0
	case n <= 0:
		w.page.heartbeats.Add(1)
		return w.page.served.Load()
	}
	return w.page.served.Add(uint64(n))
}

// Heartbeat publishes that the worker makes progress.
func (w *Writer) Heartbeat() {
	if w != nil {
		w.page.heartbeats.Add(1)
	}
}

// UseContext publishes that the worker has called Context. It is no heartbeat.
func (w *Writer) UseContext() {
	if w != nil {
		w.page.context.Store(1)
	}
}
