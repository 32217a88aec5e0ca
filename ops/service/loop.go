package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prefork-go/prefork/internal/sig"
)

// A Loop is a service that this process runs, from Begin to Close. Next and
// Close must be called by one goroutine at a time.
type Loop struct {
	s           *Service
	lock        *heldLock
	ctx         context.Context
	cancel      context.CancelCauseFunc
	resumed     chan struct{} // buffered: the paused flag may be unset
	traps       *traps
	wg          sync.WaitGroup
	closing     chan struct{}
	pauseLogged bool
}

// These are the causes of a Loop's context, in addition to the cause of the
// context that was passed to Begin.
var (
	errStopFlag = errors.New("service: the stopped flag was set")
	errClosed   = errors.New("service: the loop was closed")
)

// minTouchInterval is the minimum time between two touches of the pid file by a
// loop.
const minTouchInterval = 100 * time.Millisecond

// Run runs the service: it calls work repeatedly until work returns false or an
// error, the stopped flag is set, a signal of TrapSignals arrives, or ctx ends.
// It waits while the paused flag is set. Run does not pause between two calls,
// so work must set the pace.
//
// The context that work receives ends when the service should stop. Run never
// interrupts a call of work, so a long call should return when its context
// ends.
//
// Run touches the pid file before each call, at most ten times a second. Other
// processes can read its modification time to check that the loop is alive.
//
// An error that matches ErrStopped or ErrRunning means that the service was not
// started and work was not called. Any other error comes from work, the files,
// or ctx if it ended during the wait for the lock. Nil means that the service
// has run and ended normally. When Run returns, and also if work panics, the
// pid file is removed and the signals have their former effect.
func (s *Service) Run(ctx context.Context, work func(context.Context) (more bool, err error)) (err error) {
	l, err := s.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for l.Next() {
		more, err := work(l.Context())
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Begin starts the service around a loop of the caller. Use it if Run does not
// fit:
//
//	l, err := s.Begin(ctx)
//	if err != nil { ... }
//	defer l.Close()
//	for l.Next() { ... }
//
// Begin acquires the lock. If another process holds it, Begin waits for at most
// LockTimeout. It returns ErrStopped, a *RunningError, the error of ctx, or an
// error of the files.
func (s *Service) Begin(ctx context.Context) (*Loop, error) {
	if err := checkTraps(s.TrapSignals); err != nil {
		return nil, s.wrap(err)
	}
	lock, w, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	l := &Loop{
		s:       s,
		lock:    lock,
		resumed: make(chan struct{}, 1),
		traps:   trap(s.TrapSignals),
		closing: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.wg.Go(func() { l.monitor(w) })
	return l, nil
}

// Next reports whether the loop should run another iteration. It waits while
// the service is paused. It returns false once the stopped flag is set, a
// signal of TrapSignals has arrived, or the context has ended.
func (l *Loop) Next() bool {
	for l.ctx.Err() == nil {
		if stopped, _ := l.s.mustObey(&l.s.stopFlag); stopped {
			l.cancel(errStopFlag)
			return false
		}
		if paused, _ := l.s.mustObey(&l.s.pauseFlag); !paused {
			if l.pauseLogged {
				l.pauseLogged = false
				l.s.log().Info("resumed")
			}
			l.lock.touch(minTouchInterval)
			return true
		}
		l.waitPaused()
	}
	return false
}

// waitPaused waits until the paused flag may be unset, the next heartbeat is due,
// or the context ends.
func (l *Loop) waitPaused() {
	if !l.pauseLogged {
		l.pauseLogged = true
		path, _ := l.s.path(&l.s.pauseFlag)
		l.s.log().Info("paused", "flag", path)
	}
	var heartbeat <-chan time.Time
	if l.s.Heartbeat > 0 {
		timer := time.NewTimer(l.s.Heartbeat)
		defer timer.Stop()
		heartbeat = timer.C
	}
	select {
	case <-l.resumed:
	case <-heartbeat:
		l.lock.touch(0)
	case <-l.ctx.Done():
	}
}

// Context returns a context that ends when the loop should end. The function
// context.Cause returns the reason. Context is safe for concurrent use.
func (l *Loop) Context() context.Context { return l.ctx }

// Close ends the service: it removes the pid file, releases the lock and
// restores the signals. Further calls are no-ops. Close returns ErrLockLost if
// another process has acquired the lock, or an error of the files.
func (l *Loop) Close() error {
	if l.lock == nil {
		return nil
	}
	lockLost := errors.Is(context.Cause(l.ctx), ErrLockLost)
	l.cancel(errClosed)
	close(l.closing)
	l.wg.Wait()
	l.traps.restore()
	err := l.lock.release()
	l.lock = nil
	if lockLost {
		err = errors.Join(ErrLockLost, err)
	}
	return l.s.wrap(err)
}

// monitor ends the loop's context when a signal or a flag demands it, and keeps
// the pid file in place.
func (l *Loop) monitor(w *fileWatcher) {
	defer w.close()
	lockLost := false
	for {
		select {
		case caught := <-l.traps.c:
			name := sig.Name(caught)
			l.s.log().Warn("signal caught", "signal", name, "pid", os.Getpid())
			l.cancel(fmt.Errorf("service: caught %s", name))
		case <-w.changed:
			if stopped, _ := l.s.mustObey(&l.s.stopFlag); stopped {
				l.cancel(errStopFlag)
			}
			// A lost lock belongs to another process and must not be
			// acquired again while this loop ends.
			if !lockLost {
				lockLost = l.checkLock()
			}
			if paused, _ := l.s.mustObey(&l.s.pauseFlag); !paused {
				select {
				case l.resumed <- struct{}{}:
				default:
				}
			}
		case <-l.closing:
			return
		}
	}
}

// checkLock restores the pid file. It ends the loop's context and returns true
// if the lock is lost.
func (l *Loop) checkLock() (lost bool) {
	err := l.lock.restore()
	if err == nil {
		return false
	}
	l.s.log().Error("lock lost, stopping", "err", err)
	l.cancel(err)
	return true
}
