package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// An Outcome is the result of Zap. The zero value is not valid.
type Outcome uint8

const (
	NotRunning   Outcome = iota + 1 // the service was not running
	Exited                          // the service was running and has exited
	StillRunning                    // the service had not exited when the context ended
	Self                            // the caller runs the service, and cannot wait for itself
)

// String returns "not running", "exited", "still running" or "self".
func (o Outcome) String() string {
	names := [...]string{"unknown", "not running", "exited", "still running", "self"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("unknown (%d)", o)
}

// Escalation tells Zap when to signal a service that ignores its stopped flag.
type Escalation struct {
	// Term and Kill are the times after which Zap sends SIGTERM and SIGKILL,
	// counted from when the flag was set. Zero means never.
	Term, Kill time.Duration
}

// Zap stops the service: it sets the stopped flag and waits until no process
// runs the service, or ctx ends. The flag remains set, so Start must be called
// before the service can run again.
//
// On Linux Zap is notified when the process exits, also if it belongs to
// another user. On other systems it checks every 200 ms.
//
// Zap sends the signals of the Escalation to the lock holder only, never to a
// process that has a recycled pid. If the pid file belongs neither to this user
// nor to root, Zap signals only a process of the file's owner. On systems other
// than Linux it then sends no signal.
//
// If the flag cannot be set, for example on a read-only file system, Zap sends
// the signals nevertheless, and returns the error with the Outcome. It does the
// same if a signal could not be sent, for example because the pid of the process
// is unknown. Without signals, a service whose flag cannot be set is StillRunning
// at once. Any other error has an Outcome of zero. The end of ctx is not an
// error, but StillRunning.
func (s *Service) Zap(ctx context.Context, e Escalation) (Outcome, error) {
	// Check before the flag can cause the service to exit.
	pid, running, err := s.Running()
	flagErr := s.Stop()
	if err == nil && !running {
		pid, running, err = s.Running() // it may have started in the meantime
	}
	switch {
	case err != nil:
		return 0, errors.Join(err, flagErr)
	case !running:
		return NotRunning, flagErr
	case pid == os.Getpid():
		return Self, flagErr
	case flagErr != nil && e.Term <= 0 && e.Kill <= 0:
		return StillRunning, flagErr
	}
	p, _ := s.resolved()
	err = errors.Join(
		flagErr,
		s.signalAfter(ctx, p, e.Term, termSignal),
		s.signalAfter(ctx, p, remaining(e.Kill, e.Term), killSignal),
	)
	switch waitErr := s.waitUnlocked(ctx, p, nil); {
	case waitErr == nil:
		return Exited, err
	case ctx.Err() != nil:
		return StillRunning, err
	default:
		return 0, errors.Join(s.wrap(waitErr), err)
	}
}

// remaining returns the rest of a delay after elapsed. A delay of zero means
// never, so the rest of any other delay is at least 1 ns.
func remaining(delay, elapsed time.Duration) time.Duration {
	if delay == 0 {
		return 0
	}
	return max(delay-elapsed, 1)
}

// signalAfter waits for a delay, and sends a signal if the service is still
// running.
func (s *Service) signalAfter(ctx context.Context, p paths, delay time.Duration, signal os.Signal) error {
	if delay <= 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	if s.waitUnlocked(limited, p, nil) == nil || ctx.Err() != nil {
		return nil
	}
	pid, err := pidfile.Signal(p.pid, signal)
	if err == nil && pid == 0 {
		_, running, holderErr := pidfile.Holder(p.pid)
		if holderErr != nil || !running {
			return s.wrap(holderErr)
		}
		return s.wrap(fmt.Errorf("cannot send %s: the service runs with an unknown pid, "+
			"perhaps in another container, or as workers of an earlier process", sig.Name(signal)))
	}
	if err != nil {
		return s.wrap(fmt.Errorf("cannot send %s to process %d: %w", sig.Name(signal), pid, err))
	}
	s.log().Warn("stopped flag ignored, signal sent", "signal", sig.Name(signal), "pid", pid)
	return nil
}

// waitUnlocked waits until no process holds the lock, cancelled returns true,
// or ctx ends. Only the last is an error.
func (s *Service) waitUnlocked(ctx context.Context, p paths, cancelled func() bool) error {
	w := s.watchFiles(p)
	defer w.close()
	for {
		pid, running, err := pidfile.Holder(p.pid)
		if err != nil || !running || cancelled != nil && cancelled() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.waitChange(ctx, pid, w); err != nil {
			return err
		}
	}
}

// waitChange waits until the lock holder exits, a file changes, or ctx ends.
func (s *Service) waitChange(ctx context.Context, pid int, w *fileWatcher) error {
	var poll <-chan time.Time
	exited, release := pidfile.WatchExit(w.files.pid, pid)
	defer release()
	if exited == nil {
		timer := time.NewTimer(pollInterval)
		defer timer.Stop()
		poll = timer.C
	}
	select {
	case <-exited:
	case <-w.changed:
	case <-poll:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
