//go:build unix

package monitor

import (
	"errors"
	"sync/atomic"
	"time"
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
			u.await(func() { u.mon.disk.write(u) })
		})
	}
	if f != nil {
		u.writer.put(f)
	}
}

// rewriteAfter is the time after which files are written again that could not be.
const rewriteAfter = time.Second

// writeFiles writes the files of supervise/. If it fails, as on a full disk, they are
// written again, since the service may not change any more.
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
	switch gone := u.removed || u.sup == nil; {
	case err != nil && !gone:
		if !u.failing {
			u.log.Warn("cannot write the files of supervise, trying again", "err", err)
		}
		u.tallied = u.tallied || tallied
		if u.rewrite == nil {
			u.rewrite = time.AfterFunc(rewriteAfter, func() {
				u.mu.Lock()
				u.rewrite = nil
				u.mu.Unlock()
				u.show(nil)
			})
		}
	case err == nil && u.failing:
		u.log.Info("the files of supervise are written again")
	}
	u.failing = err != nil
}
