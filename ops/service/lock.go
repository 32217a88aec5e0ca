package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// heldLock is the locked pid file of a service that this process runs.
type heldLock struct {
	s           *Service
	predecessor int // pid of the manager that passed the lock on, or 0

	mu      sync.Mutex
	file    *pidfile.File
	touched time.Time
	lastErr string // of the last attempt to create the file again
}

// errPredecessor is returned while the previous manager holds the lock. It has
// created the pid file again after the successor inherited the removed one.
var errPredecessor = errors.New("previous manager still holds the lock")

// acquire acquires the lock and starts to watch the files.
func (s *Service) acquire(ctx context.Context) (*heldLock, *fileWatcher, error) {
	if s.Stopped() {
		return nil, nil, s.stoppedError()
	}
	lock, err := s.acquireLock(ctx)
	if err != nil {
		return nil, nil, err
	}
	if s.Stopped() { // the flag may have been set in the meantime
		return nil, nil, errors.Join(s.stoppedError(), s.wrap(lock.release()))
	}
	return lock, s.watchFiles(), nil
}

// acquireLock locks the pid file. If another process holds the lock, it waits
// for at most LockTimeout.
func (s *Service) acquireLock(ctx context.Context) (*heldLock, error) {
	file, err := pidfile.Acquire(s.PIDFile)
	var held *pidfile.HeldError
	if !errors.As(err, &held) || s.LockTimeout == 0 {
		return s.newHeldLock(file, err)
	}
	limited := ctx
	if s.LockTimeout > 0 {
		var cancel func()
		limited, cancel = context.WithTimeout(ctx, s.LockTimeout)
		defer cancel()
	}
	s.log().Info("waiting for lock holder to exit", "pid", held.PID)
	for errors.As(err, &held) {
		waitErr := s.waitUnlocked(limited, s.Stopped)
		if s.Stopped() {
			return nil, s.stoppedError()
		}
		if ctx.Err() != nil {
			return nil, s.wrap(context.Cause(ctx))
		}
		if waitErr != nil {
			break // LockTimeout has passed; err names the lock holder
		}
		file, err = pidfile.Acquire(s.PIDFile)
	}
	return s.newHeldLock(file, err)
}

// newHeldLock converts the result of pidfile.Acquire.
func (s *Service) newHeldLock(file *pidfile.File, err error) (*heldLock, error) {
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held):
		return nil, &RunningError{s.name, held.PID}
	case err != nil:
		return nil, s.wrap(err)
	}
	return &heldLock{s: s, file: file}, nil
}

// touch touches the file, unless that was done within minInterval.
func (h *heldLock) touch(minInterval time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.touched) >= minInterval {
		h.touched = now
		h.file.Touch() // an error shows as a missing heartbeat
	}
}

// ensureInPlace creates and locks the pid file again if it was removed. Without
// the file, a process that starts would not find the lock.
func (h *heldLock) ensureInPlace() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file.InPlace() {
		return nil
	}
	file, err := pidfile.Acquire(h.s.PIDFile)
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held) && held.PID == h.predecessor && h.predecessor != 0:
		return errPredecessor
	case errors.As(err, &held):
		return fmt.Errorf("%w: process %d", ErrLockLost, held.PID)
	case err != nil:
		if err.Error() != h.lastErr { // log repeated failures once
			h.lastErr = err.Error()
			h.s.log().Error("pid file removed, cannot create it again: a second process could start", "err", err)
		}
		return nil
	}
	h.lastErr = ""
	h.s.log().Warn("pid file removed, created again", "path", h.s.PIDFile)
	h.file.Close()
	h.file = file
	return nil
}

// release removes the pid file and releases the lock.
func (h *heldLock) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Release()
}

// leave closes the pid file, which another manager has inherited.
func (h *heldLock) leave() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Close()
}

// writePID writes this process's pid into the file.
func (h *heldLock) writePID() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Write()
}

// openFile returns the open file, which carries the lock.
func (h *heldLock) openFile() *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.File()
}
