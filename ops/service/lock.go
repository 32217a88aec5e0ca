package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/safedir"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// heldLock is the locked pid file of a service that this process runs.
type heldLock struct {
	s           *Service
	path        string
	predecessor int // pid of the manager that passed the lock on, or 0

	mu      sync.Mutex
	file    *pidfile.File
	left    bool // it is closed
	touched time.Time
	lastErr string // of the last attempt to restore the file
}

// errPredecessor is returned while the previous manager holds the lock. It has
// created the pid file again after the successor inherited the removed one.
var errPredecessor = errors.New("previous manager still holds the lock")

// acquire acquires the lock and starts to watch the files.
func (s *Service) acquire(ctx context.Context) (*heldLock, *fileWatcher, error) {
	p, err := s.resolved()
	if err != nil {
		return nil, nil, s.wrap(err)
	}
	if err := s.mayStart(p); err != nil {
		return nil, nil, err
	}
	lock, err := s.acquireLock(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if err := s.mayStart(p); err != nil { // a flag may have been set in the meantime
		return nil, nil, errors.Join(err, s.wrap(lock.release()))
	}
	return lock, s.watchFiles(p), nil
}

// mayStart returns an error if the stopped flag is set. It also returns an error
// if a flag cannot be examined, since no state of it is known yet.
func (s *Service) mayStart(p paths) error {
	stopped, err := s.mustObey(&s.stopFlag)
	if stopped {
		return s.stoppedError(p.stop)
	}
	if err == nil {
		_, err = s.mustObey(&s.pauseFlag)
	}
	return s.wrap(err)
}

// acquireLock locks the pid file. If another process holds the lock, it waits
// for at most LockTimeout.
func (s *Service) acquireLock(ctx context.Context, p paths) (*heldLock, error) {
	file, err := pidfile.Acquire(p.pid)
	var held *pidfile.HeldError
	if !errors.As(err, &held) || s.LockTimeout == 0 {
		return s.newHeldLock(p, file, err)
	}
	limited := ctx
	if s.LockTimeout > 0 {
		var cancel func()
		limited, cancel = context.WithTimeout(ctx, s.LockTimeout)
		defer cancel()
	}
	s.log().Info("waiting for lock holder to exit", "pid", held.PID)
	for errors.As(err, &held) {
		stopped := false
		waitErr := s.waitUnlocked(limited, p, func() bool {
			stopped, _ = s.mustObey(&s.stopFlag)
			return stopped
		})
		if stopped {
			return nil, s.stoppedError(p.stop)
		}
		if ctx.Err() != nil {
			return nil, s.wrap(context.Cause(ctx))
		}
		if waitErr != nil {
			break // LockTimeout has passed; err names the lock holder
		}
		file, err = pidfile.Acquire(p.pid)
	}
	return s.newHeldLock(p, file, err)
}

// newHeldLock converts the result of pidfile.Acquire.
func (s *Service) newHeldLock(p paths, file *pidfile.File, err error) (*heldLock, error) {
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held):
		return nil, &RunningError{s.name, held.PID}
	case err != nil:
		return nil, s.wrap(explainAcquire(p, err))
	}
	return &heldLock{s: s, path: p.pid, file: file}, nil
}

// explainAcquire adds to an error of pidfile.Acquire that the directory is the
// reason.
func explainAcquire(p paths, err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	if dirErr := checkWritable(filepath.Dir(p.pid)); dirErr != nil {
		return fmt.Errorf("%w (%w)", err, dirErr)
	}
	return err
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

// restoreTimeout bounds how long restore waits for a reader that holds a shared
// lock for a moment. The next check tries again.
const restoreTimeout = 20 * time.Millisecond

// restore restores the pid file at its path if it was removed or overwritten, or
// if the path leads to another directory now. Without the file, a process that
// starts might not find the lock, and no process would find this one.
func (h *heldLock) restore() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A predecessor that has exited is no parent of this process any more.
	predecessorLives := h.predecessor != 0 && h.predecessor == os.Getppid()
	restored, err := h.file.Restore()
	for end := time.Now().Add(restoreTimeout); isTemporary(err) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		restored, err = h.file.Restore()
	}
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held) && predecessorLives && (held.PID == h.predecessor || held.PID == 0):
		// Its pid is unknown until it has written the file.
		return errPredecessor
	case errors.As(err, &held):
		return fmt.Errorf("%w: %w", ErrLockLost, held)
	case err != nil:
		if err.Error() != h.lastErr { // log repeated failures once
			h.lastErr = err.Error()
			h.s.log().Error("pid file removed, cannot create it again: other processes cannot find this one", "err", err)
		}
		return nil
	}
	h.lastErr = ""
	switch restored {
	case pidfile.Recreated:
		h.s.log().Warn("pid file removed, created again", "path", h.path)
	case pidfile.Rewritten:
		h.s.log().Warn("pid file overwritten, written again", "path", h.path)
	}
	return nil
}

// isTemporary reports whether an attempt to lock the pid file may succeed in a
// moment: another process reads or replaces it.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, safedir.ErrReplaced)
}

// release removes the pid file and releases the lock.
func (h *heldLock) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Release()
}

// leave closes the pid file, which another manager has inherited. Further calls
// are no-ops.
func (h *heldLock) leave() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return nil
	}
	h.left = true
	return h.file.Close()
}

// writePID writes this process's pid into the file.
func (h *heldLock) writePID() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Write()
}

// openFiles returns the open files that carry the locks on the pid file and on
// its name. The second is nil if the system has no lock on names.
func (h *heldLock) openFiles() (file, name *os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.File(), h.file.Name()
}
