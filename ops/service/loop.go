package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Loop is a service that this process runs, from Begin to Close. Next and Close are for one goroutine.
type Loop struct {
	s       *Service
	lock    *hold
	ctx     context.Context
	cancel  context.CancelCauseFunc
	changed chan struct{} // has room for one: a flag may have changed
	traps   *traps
	tend    sync.WaitGroup
	stop    chan struct{}
	waits   bool // it was said that the loop waits
}

// The causes of the end of a Loop's Context, beside that of the context that Begin was given.
var (
	errFlag   = errors.New("service: the stopped flag was set")
	errClosed = errors.New("service: the loop was closed")
)

// Run runs the service: it calls work again and again until that returns false or an error, the stopped flag is set, a
// trapped signal arrives, or ctx ends. While the paused flag is set it waits. A call of work is never interrupted, but the
// context that it is given ends when the loop is to end. Between two calls there is no pause: work sets the pace.
//
// Each turn touches the pid file, at most ten times a second, so that its time tells whether the loop turns.
//
// The error tells whether work was called: an ErrStopped or ErrRunning says that the service was not started, any other
// error is of work or of the files, nil says that it was started and has ended as it should. When Run returns, the pid
// file is gone and the signals do what they did before, also if work panics.
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

// Begin is Run around a loop of the caller's own:
//
//	l, err := s.Begin(ctx)
//	if err != nil { ... }
//	defer l.Close()
//	for l.Next() { ... }
//
// It takes the service's name; while another process has it, it waits for as long as LockTimeout says. Its errors are
// ErrStopped, a *RunningError, ctx's, and those of the files.
func (s *Service) Begin(ctx context.Context) (*Loop, error) {
	if err := checkTraps(s.TrapSignals); err != nil {
		return nil, s.wrap(err)
	}
	lock, w, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	l := &Loop{s: s, lock: lock, changed: make(chan struct{}, 1), stop: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.traps = trap(s.TrapSignals)
	l.tend.Go(func() { l.mind(w) })
	return l, nil
}

// take takes the name, and begins to watch the files.
func (s *Service) take(ctx context.Context) (*hold, *watcher, error) {
	if s.Stopped() {
		return nil, nil, s.wrap(ErrStopped)
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	if s.Stopped() { // it may have been set while we were at it
		return nil, nil, errors.Join(s.wrap(ErrStopped), s.wrap(lock.release()))
	}
	return lock, s.watch(), nil
}

// Next is true when the loop is to turn once more. While the service is paused it waits. It is false at the end: the
// stopped flag is set, a trapped signal has come, or the context has ended.
func (l *Loop) Next() bool {
	for l.ctx.Err() == nil {
		switch {
		case l.s.Stopped():
			l.cancel(errFlag)
			return false
		case !l.s.Paused():
			if l.waits {
				l.waits = false
				l.s.log().Info("resumed")
			}
			l.lock.beat(minBeat)
			return true
		}
		l.wait()
	}
	return false
}

// wait waits until a flag may have changed.
func (l *Loop) wait() {
	if !l.waits {
		l.waits = true
		l.s.log().Info("paused", "by", l.s.PauseFile)
	}
	var beat <-chan time.Time
	if l.s.Heartbeat > 0 {
		timer := time.NewTimer(l.s.Heartbeat)
		defer timer.Stop()
		beat = timer.C
	}
	select {
	case <-l.changed:
	case <-beat:
		l.lock.beat(0)
	case <-l.ctx.Done():
	}
}

// Context ends when the loop is to end; context.Cause says why. Any goroutine.
func (l *Loop) Context() context.Context { return l.ctx }

// Close ends the service: it gives the name free and the signals back. A second call does nothing. The error is ErrLost
// if another process has taken the name, or says what is wrong with the files.
func (l *Loop) Close() error {
	if l.lock == nil {
		return nil
	}
	lost := errors.Is(context.Cause(l.ctx), ErrLost)
	l.cancel(errClosed)
	close(l.stop)
	l.tend.Wait()
	l.traps.giveBack()
	err := l.lock.release()
	l.lock = nil
	if lost {
		err = errors.Join(ErrLost, err)
	}
	return l.s.wrap(err)
}

// mind does what is to be done at any moment of the loop.
func (l *Loop) mind(w *watcher) {
	defer w.close()
	lost := false
	for {
		select {
		case sig := <-l.traps.c:
			l.s.log().Warn("Caught "+signalName(sig), "pid", os.Getpid())
			l.cancel(fmt.Errorf("service: caught %s", signalName(sig)))
		case <-w.changed:
			if l.s.Stopped() {
				l.cancel(errFlag)
			}
			if lost {
				// Somebody else has the name, and it is not to be taken from him while this loop ends.
			} else if err := l.lock.keep(); err != nil {
				lost = true
				l.s.log().Error("the service ends", "err", err)
				l.cancel(err)
			}
			select {
			case l.changed <- struct{}{}:
			default:
			}
		case <-l.stop:
			return
		}
	}
}

// minBeat is the least time between two touches of the pid file in a loop that turns fast.
const minBeat = 100 * time.Millisecond

// hold is the pid file of a service that this process runs.
type hold struct {
	s      *Service
	mu     sync.Mutex
	file   *pidfile.File
	last   time.Time // of a beat
	before int       // the manager that a successor has inherited it from
	failed string    // why the file could last not be made anew
}

// lock takes the pid file, and waits for it as LockTimeout says.
func (s *Service) lock(ctx context.Context) (*hold, error) {
	file, err := pidfile.Take(s.PIDFile)
	var held *pidfile.HeldError
	if !errors.As(err, &held) || s.LockTimeout == 0 {
		return s.hold(file, err)
	}
	limit := ctx
	if s.LockTimeout > 0 {
		var cancel func()
		limit, cancel = context.WithTimeout(ctx, s.LockTimeout)
		defer cancel()
	}
	s.log().Info("waits for the process that runs to end", "pid", held.PID)
	for errors.As(err, &held) {
		waitErr := s.awaitFree(limit, s.Stopped)
		if s.Stopped() {
			return nil, s.wrap(ErrStopped)
		}
		if ctx.Err() != nil {
			return nil, s.wrap(context.Cause(ctx))
		}
		if waitErr != nil {
			break // LockTimeout is over: err says who runs
		}
		file, err = pidfile.Take(s.PIDFile)
	}
	return s.hold(file, err)
}

// hold is what becomes of pidfile.Take.
func (s *Service) hold(file *pidfile.File, err error) (*hold, error) {
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held):
		return nil, &RunningError{s.name, held.PID}
	case err != nil:
		return nil, s.wrap(err)
	}
	return &hold{s: s, file: file}, nil
}

// beat touches the file, unless that was done within the last least.
func (h *hold) beat(least time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.last) >= least {
		h.last = now
		h.file.Touch() // a heartbeat that fails shows by itself
	}
}

// errBefore says that the manager before this successor still has the name: it has made the file anew when the successor had inherited
// the one that was removed.
var errBefore = errors.New("the manager before this one has not ended yet")

// keep takes the name anew if somebody has removed the file, since a process that starts would not see that it is held.
func (h *hold) keep() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file.InPlace() {
		return nil
	}
	file, err := pidfile.Take(h.s.PIDFile)
	var held *pidfile.HeldError
	switch {
	case errors.As(err, &held) && held.PID == h.before && h.before != 0:
		return errBefore
	case errors.As(err, &held):
		return fmt.Errorf("%w: process %d", ErrLost, held.PID)
	case err != nil:
		if err.Error() != h.failed { // it is tried again and again
			h.failed = err.Error()
			h.s.log().Error("the pid file was removed and cannot be made anew: the service could be started twice", "err", err)
		}
		return nil
	}
	h.failed = ""
	h.s.log().Warn("the pid file was removed; it is there again", "path", h.s.PIDFile)
	h.file.Close()
	h.file = file
	return nil
}

func (h *hold) release() error { return h.leave(true) }

// leave lets go of the file. One that is another process's too is left to that.
func (h *hold) leave(ours bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ours {
		return h.file.Close()
	}
	return h.file.Release()
}

// name writes this process's pid.
func (h *hold) name() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Write()
}

// open is the open file, which has the lock.
func (h *hold) open() *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.File()
}

// traps are the signals that a loop receives.
type traps struct {
	c       chan os.Signal
	ignored []os.Signal // before
}

func checkTraps(sigs []os.Signal) error {
	for _, sig := range sigs {
		if sig == nil || !trappable(sig) {
			return fmt.Errorf("TrapSignals: %v cannot be trapped", sig)
		}
	}
	return nil
}

func trap(sigs []os.Signal) *traps {
	t := &traps{c: make(chan os.Signal, 1)}
	for _, sig := range sigs {
		if signal.Ignored(sig) {
			t.ignored = append(t.ignored, sig)
		}
	}
	if len(sigs) > 0 { // of none, Notify makes all
		signal.Notify(t.c, sigs...)
	}
	return t
}

// giveBack has the signals do what they did before. Other receivers in the program have had them all the time.
func (t *traps) giveBack() {
	signal.Stop(t.c)
	if len(t.ignored) > 0 {
		signal.Ignore(t.ignored...)
	}
}

func signalName(sig os.Signal) string {
	if s, ok := sig.(syscall.Signal); ok {
		if name := nameOf(s); name != "" {
			return name
		}
	}
	return sig.String()
}
