package service

import (
	"context"
	"errors"
	"os"
	"os/signal"
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
	a := &attachment{s: s, pm: pm, lock: lock, closing: make(chan struct{})}
	a.update()
	a.wg.Go(func() { a.monitor(w) })
	return sync.OnceValue(a.detach), nil
}

// passedFile is the name under which a successor inherits the pid file.
func (s *Service) passedFile() string { return "service " + s.PIDFile }

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
	f := prefork.PassedFile(s.passedFile())
	if f == nil {
		lock, w, err := s.acquireUntilSignal()
		if err == nil {
			prefork.PassFile(s.passedFile(), lock.file.File())
		}
		return lock, w, err
	}
	file, err := pidfile.Adopt(s.PIDFile, f, nil)
	if err != nil {
		f.Close()
		return nil, nil, s.wrap(err)
	}
	if s.Stopped() {
		return nil, nil, errors.Join(s.stoppedError(), file.Close())
	}
	prefork.PassFile(s.passedFile(), f)
	lock := &heldLock{s: s, file: file, predecessor: pidfile.Read(s.PIDFile)}
	return lock, s.watchFiles(), nil
}

// attachment connects a Manager with a service.
type attachment struct {
	s            *Service
	pm           *prefork.Manager
	lock         *heldLock
	wg           sync.WaitGroup
	closing      chan struct{}
	retry        <-chan time.Time // when to acquire the predecessor's lock
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
		return
	}
	if a.s.Paused() {
		a.pm.Pause()
	} else {
		a.pm.Resume()
	}
	if isActiveManager() && !a.lockLost {
		a.checkLock()
	}
	if (a.lockLost || a.s.Stopped()) && !a.shutdownSent {
		a.shutdownSent = true
		a.pm.Shutdown()
	}
}

// checkLock restores a pid file that was removed, and passes the locked file on
// to the next successor.
func (a *attachment) checkLock() {
	switch err := a.lock.ensureInPlace(); {
	case errors.Is(err, errPredecessor):
		a.retry = time.After(pollInterval)
	case err != nil:
		a.s.log().Error("lock lost, stopping", "err", err)
		a.lockLost = true
	default:
		prefork.PassFile(a.s.passedFile(), a.lock.openFile())
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
	prefork.PassFile(a.s.passedFile(), nil)
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
