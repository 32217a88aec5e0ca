//go:build unix

package monitor

import (
	"errors"
	"sync/atomic"
)

// A writer writes the files of supervise/ of a unit after the fact, and only its last
// state, so that no start and no command waits for a disk.
type writer struct {
	queue
	due atomic.Bool
}

// show has the state of the unit written soon, and then calls f, if not nil.
func (u *unit) show(f func()) {
	u.mon.changes.notify()
	if u.writer.due.CompareAndSwap(false, true) {
		u.writer.put(func() {
			u.writer.due.Store(false)
			u.mon.disk.write(u)
		})
	}
	if f != nil {
		u.writer.put(f)
	}
}

// writeFiles writes the files of supervise/.
func (u *unit) writeFiles() {
	u.mu.Lock()
	sup, status, tallied, tally := u.sup, u.oldest().Status(), u.tallied, u.tally
	u.tallied = false
	u.mu.Unlock()
	if sup == nil {
		return
	}
	err := sup.Write(status)
	if tallied {
		err = errors.Join(err, sup.WriteTally(appendTally(nil, tally)))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil && !u.failing && !u.removed && u.sup != nil {
		u.log.Warn("cannot write the files of supervise", "err", err)
	}
	u.failing = err != nil
}
