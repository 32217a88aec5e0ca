package scoreboard

import (
	"errors"
	"fmt"
)

// A Writer is a worker's cell as the worker has it. Its methods may be called from any goroutine of the worker, at the
// same time; they make no system call, allocate nothing and never block, save for the ring. A nil Writer is that of a
// process without a cell: what is published there goes nowhere.
type Writer struct {
	page *page
	ring func()
}

// Open maps the cell at descriptor fd, which New has made in the manager. Worker. The descriptor stays the caller's, who
// should close it: the mapping lasts as long as the process. ring is called by Set, in its goroutine, when the manager
// is to be woken; it must not block. It may drop a message for which the socket has no room: then the manager has others of
// this worker to read, and looks all the same.
func Open(fd int, ring func()) (*Writer, error) {
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
	return &Writer{page: p, ring: ring}, nil
}

func checkLayout(got uint64) error {
	switch {
	case got == layout:
		return nil
	case got>>8 == layout>>8:
		return fmt.Errorf("the manager's cells have layout %d, this program's %d: both must use the same version of the library", got&0xff, layout&0xff)
	}
	return errors.New("not a cell that a manager has made")
}

// Set publishes the status: Idle, or any other byte but None for busy. It counts as a beat.
func (w *Writer) Set(c byte) {
	if w == nil {
		return
	}
	off := bellLow
	if !isBusy(c) {
		off = bellHigh
	}
	for {
		old := w.page.state.Load()
		next := old&^(statusByte|off) + oneChange | statusSet | uint64(c)
		if w.page.state.CompareAndSwap(old, next) {
			if old&off != 0 {
				w.ring()
			}
			return
		}
	}
}

// Served counts n requests, and returns how many there were. It counts as a beat; with an n of 0 or less it is nothing but
// one.
func (w *Writer) Served(n int) (total uint64) {
	switch {
	case w == nil:
		return 0
	case n <= 0:
		w.page.beats.Add(1)
		return w.page.served.Load()
	}
	return w.page.served.Add(uint64(n))
}

// Beat says that the worker is alive.
func (w *Writer) Beat() {
	if w != nil {
		w.page.beats.Add(1)
	}
}
