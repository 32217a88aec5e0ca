//go:build unix

package monitor

import "sync"

// writer writes the files of supervise/. One goroutine does it for all units, and
// only the last state of each, so that no start and no command waits for a disk.
type writer struct {
	wake   chan struct{}
	notify func() // called at each change, also of units without files

	mu    sync.Mutex
	units []*unit // that have changed
	known map[*unit]bool
	after []func() // to be called when these are written
	stop  bool
}

func newWriter(notify func()) *writer {
	return &writer{notify: notify, wake: make(chan struct{}, 1), known: make(map[*unit]bool)}
}

// changed has the files of a unit written soon, and then calls f, if not nil.
func (w *writer) changed(u *unit, f func()) {
	w.notify()
	w.mu.Lock()
	if u != nil && !w.known[u] {
		w.known[u] = true
		w.units = append(w.units, u)
	}
	if f != nil {
		w.after = append(w.after, f)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// close ends the goroutine when everything is written.
func (w *writer) close() {
	w.mu.Lock()
	w.stop = true
	w.mu.Unlock()
	w.changed(nil, nil)
}

// loop is the goroutine.
func (w *writer) loop() {
	for {
		<-w.wake
		w.mu.Lock()
		units, after, stop := w.units, w.after, w.stop
		w.units, w.after = nil, nil
		clear(w.known)
		w.mu.Unlock()
		for _, u := range units {
			u.writeFiles()
		}
		for _, f := range after {
			f()
		}
		if stop && len(units) == 0 && len(after) == 0 {
			return
		}
	}
}
