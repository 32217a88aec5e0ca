//go:build unix

package monitor

import (
	"errors"
	"time"
)

// disk has the calls that wait for the disk of a service, which may hang. They are
// made without the mutex of the Monitor and those of units. Tests replace them by
// ones that hang.
type disk struct {
	read         func(dir string) settings
	isExecutable func(path string) (bool, error)
	isThere      func(path string) bool
	write        func(*unit) // the files of supervise
}

func theDisk() disk {
	return disk{read: read, isExecutable: isExecutable, isThere: isThere, write: (*unit).writeFiles}
}

// errDisk is the problem of a service that waits for its disk for long.
var errDisk = errors.New("its disk does not answer: waiting for it")

// await calls a function that waits for the disk of the unit.
func (u *unit) await(f func()) {
	u.waits.Add(1)
	defer u.waits.Add(-1)
	f()
}

// awaitStart is await before a start of run. After a while that is the problem of the
// service.
func (u *unit) awaitStart(f func()) {
	done, slow := false, false
	limit := time.AfterFunc(u.mon.patience, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if !done {
			slow = true
			u.setProblem(errDisk)
			u.mon.changes.notify()
		}
	})
	defer limit.Stop()
	u.await(f)
	u.mu.Lock()
	defer u.mu.Unlock()
	if done = true; slow {
		u.problem = ""
	}
}
