package service

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Attach runs a Manager as the service, until detach is called. It should be
// called after prefork.New and before Listen: a program that is started twice
// then reports ErrRunning, and not an address in use. The caller must call
// detach after Run or WaitAllChildren has returned.
//
//	pm, err := prefork.New(...)
//	...
//	detach, err := svc.Attach(pm)
//	if err != nil { log.Fatal(err) }
//	defer detach()
//	... pm.Listen, pm.Run ...
//
// Attach acquires the lock and returns the errors of Begin. Then the stopped
// flag causes a Manager.Shutdown. The paused flag causes a Manager.Pause, also
// if it is set before the first worker is spawned. The Manager traps the
// signals of its own table, so Attach returns an error if TrapSignals is not
// empty. While Attach waits for the lock, SIGTERM and SIGINT end the wait with
// an error, whatever that table contains.
//
// The successor of an upgrade inherits the lock. The lock is held at all times,
// and the pid file contains the pid of the successor once it has taken over.
//
// If the manager is killed, its workers end within prefork.Config.OrphanTimeout.
// The service can be started again before that, unless they have the lock too;
// see ShareLock.
//
// Detach returns ErrLockLost if another process has acquired the lock, or an
// error of the files. Further calls return the same error.
//
// In a worker Attach and detach are no-ops.
func (s *Service) Attach(pm *prefork.Manager) (detach func() error, err error) {
	if prefork.IsWorker() {
		return func() error { return nil }, nil
	}
	if len(s.TrapSignals) > 0 {
		return nil, s.wrap(errors.New("TrapSignals must be empty for Attach: " +
			"set prefork.Config.TrapSignals instead"))
	}
	lock, w, err := s.inheritOrAcquire()
	if err != nil {
		return nil, err
	}
	s.setHeld(lock)
	a := &attachment{s: s, pm: pm, lock: lock, closing: make(chan struct{})}
	a.update()
	a.wg.Go(func() { a.monitor(w) })
	return sync.OnceValue(a.detach), nil
}

// ShareLock passes the lock to a worker that is about to be spawned. If the
// manager is killed, the service cannot be started again until the worker has
// exited. Call it in prefork.Config.BeforeSpawn:
//
//	BeforeSpawn: func(_ *prefork.Manager, sp *prefork.Spawn) { svc.ShareLock(sp) },
//
// It appends a descriptor to Spawn.Files, also for a Command. A Command with
// Config.ListenFDs would take it for a socket. Processes that the worker starts
// hold the lock too if they inherit the descriptor. After an orderly end of the
// service, its name is free whatever still runs. If the pid file is removed and
// made again, only workers that are spawned later hold the new one. ShareLock is
// a no-op before Attach and after detach.
func (s *Service) ShareLock(sp *prefork.Spawn) {
	s.mu.Lock()
	lock := s.held
	s.mu.Unlock()
	if lock != nil {
		// Not the lock on the name: Spawn.Files makes a socket blocking.
		file, _ := lock.openFiles()
		sp.Files = append(slices.Clip(sp.Files), file)
	}
}

func (s *Service) setHeld(lock *heldLock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = lock
}

// passLock makes the next successor inherit the lock.
func (p paths) passLock(file, name *os.File) {
	prefork.PassFile(p.passedFile(), file)
	prefork.PassFile(p.passedName(), name)
}

// passedFile is the name under which a successor inherits the pid file.
func (p paths) passedFile() string { return "service " + p.pid }

// passedName is the name under which it inherits the lock on the file's name.
func (p paths) passedName() string { return "service name " + p.pid }

// acquireUntilSignal acquires the lock, or returns an error on SIGTERM or
// SIGINT. The Manager traps these signals too, but handles them only in Run.
func (s *Service) acquireUntilSignal() (*heldLock, *fileWatcher, error) {
	stops := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) {
		stops = append(stops, os.Interrupt)
	}
	ctx, release := signal.NotifyContext(context.Background(), stops...)
	defer release()
	return s.acquire(ctx)
}

// inheritOrAcquire returns the lock, which a successor has inherited.
func (s *Service) inheritOrAcquire() (*heldLock, *fileWatcher, error) {
	p, err := s.resolved()
	if err != nil {
		return nil, nil, s.wrap(err)
	}
	f, name := prefork.PassedFile(p.passedFile()), prefork.PassedFile(p.passedName())
	if f == nil {
		name.Close() // a no-op for nil
		lock, w, err := s.acquireUntilSignal()
		if err == nil {
			p.passLock(lock.openFiles())
		}
		return lock, w, err
	}
	file, err := pidfile.Adopt(p.pid, f, name)
	if err != nil {
		f.Close()
		name.Close()
		return nil, nil, s.wrap(err)
	}
	if err := s.mayStart(p); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	// The manager that has passed the lock on has also started this process. The
	// pid file may be missing or overwritten.
	lock := &heldLock{s: s, path: p.pid, file: file, predecessor: os.Getppid()}
	p.passLock(lock.openFiles())
	return lock, s.watchFiles(p), nil
}

// attachment connects a Manager with a service.
type attachment struct {
	s            *Service
	pm           *prefork.Manager
	lock         *heldLock
	wg           sync.WaitGroup
	closing      chan struct{}
	retry        <-chan time.Time // when to acquire the predecessor's lock
	paused       bool             // the Manager
	lockLost     bool
	shutdownSent bool
}

// monitor updates the Manager whenever the files change.
func (a *attachment) monitor(w *fileWatcher) {
	defer w.close()
	var heartbeat <-chan time.Time
	if a.s.Heartbeat > 0 {
		ticker := time.NewTicker(a.s.Heartbeat)
		defer ticker.Stop()
		heartbeat = ticker.C
	}
	tookOver := prefork.TookOver()
	for {
		select {
		case <-tookOver:
			tookOver = nil
			if err := a.lock.writePID(); err != nil {
				a.s.log().Error("pid file write failed", "err", err)
			}
			a.update()
		case <-heartbeat:
			// The heartbeat of the inactive manager would conceal that the
			// active one hangs.
			if isActiveManager() {
				a.lock.touch(0)
			}
		case <-w.changed:
			a.update()
		case <-a.retry:
			a.update()
		case <-a.closing:
			return
		}
	}
}

// update reads the files and pauses, resumes or stops the Manager accordingly.
// After a successor has taken over, the files apply to the successor.
func (a *attachment) update() {
	if prefork.HandedOver() {
		// The successor may end before this process, and then must not leave
		// the name locked.
		a.lock.leave()
		return
	}
	// Each call wakes the Manager.
	if paused, _ := a.s.mustObey(&a.s.pauseFlag); paused != a.paused {
		if a.paused = paused; paused {
			a.pm.Pause()
		} else {
			a.pm.Resume()
		}
	}
	if isActiveManager() && !a.lockLost {
		a.checkLock()
	}
	if stopped, _ := a.s.mustObey(&a.s.stopFlag); (a.lockLost || stopped) && !a.shutdownSent {
		a.shutdownSent = true
		a.pm.Shutdown()
	}
}

// checkLock restores the pid file.
func (a *attachment) checkLock() {
	switch err := a.lock.restore(); {
	case errors.Is(err, errPredecessor):
		a.retry = time.After(pollInterval)
	case err != nil:
		a.s.log().Error("lock lost, stopping", "err", err)
		a.lockLost = true
	}
}

// isActiveManager reports whether the service belongs to this process alone. It
// is false in a successor that has not taken over yet, and in a manager whose
// successor has taken over.
func isActiveManager() bool {
	select {
	case <-prefork.TookOver():
		return !prefork.HandedOver()
	default:
		return false
	}
}

func (a *attachment) detach() error {
	close(a.closing)
	a.wg.Wait()
	a.s.setHeld(nil)
	p, _ := a.s.resolved()
	p.passLock(nil, nil)
	var err error
	if isActiveManager() {
		err = a.lock.release()
	} else {
		err = a.lock.leave()
	}
	if a.lockLost {
		err = errors.Join(ErrLockLost, err)
	}
	return a.s.wrap(err)
}
