package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Outcome is how a Zap came out.
type Outcome uint8

const (
	NotRunning   Outcome = iota + 1 // nobody ran the service
	Gone                            // it ran, and has stopped
	StillRunning                    // it had not stopped when the context ended
	Self                            // this process runs it, and cannot wait for itself
)

func (o Outcome) String() string {
	names := [...]string{"unknown", "was not running", "has stopped", "still running", "is this process"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("unknown (%d)", o)
}

// Escalation is what Zap does about a service that does not heed its stopped flag: so long after it was set the process is
// sent SIGTERM, or SIGKILL. 0 means never.
type Escalation struct{ Term, Kill time.Duration }

// Zap sets the stopped flag and waits until nobody runs the service any more, or ctx ends. It waits for the process itself
// where the system allows that (on Linux, of whatever user), and for the files; elsewhere it looks each 200 ms. The flag
// stays set: Start must be called before the service can run again.
//
// Signals are sent only to the process that holds the pid file, never to one that was given its pid; and where the file is
// neither this user's nor root's, only to a process of the file's owner, which on systems other than Linux cannot be told. The error, beside
// those of the files, is that of a signal that was not permitted; Zap goes on waiting then.
func (s *Service) Zap(ctx context.Context, e Escalation) (Outcome, error) {
	pid, running, err := s.Running() // before it has a reason to end
	if err := s.Stop(); err != nil {
		return 0, err
	}
	if err == nil && !running {
		pid, running, err = s.Running() // it may have started meanwhile
	}
	switch {
	case err != nil:
		return 0, err
	case !running:
		return NotRunning, nil
	case pid == os.Getpid():
		return Self, nil
	}
	err = errors.Join(
		s.stage(ctx, e.Term, termSignal),
		s.stage(ctx, left(e.Kill, e.Term), killSignal),
	)
	switch waitErr := s.awaitFree(ctx, nil); {
	case waitErr == nil:
		return Gone, err
	case ctx.Err() != nil:
		return StillRunning, err
	default:
		return 0, errors.Join(s.wrap(waitErr), err)
	}
}

// left is what is left of the time after which a signal is to be sent when a part of it has passed.
func left(all, passed time.Duration) time.Duration {
	if all == 0 {
		return 0
	}
	return max(all-passed, 1)
}

// stage waits for a time, and sends a signal if the service still runs then.
func (s *Service) stage(ctx context.Context, after time.Duration, sig os.Signal) error {
	if after <= 0 {
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	if s.awaitFree(limit, nil) == nil || ctx.Err() != nil {
		return nil
	}
	pid, err := pidfile.Signal(s.PIDFile, sig)
	if err != nil {
		return s.wrap(fmt.Errorf("cannot send %s to process %d: %w", signalName(sig), pid, err))
	}
	if pid != 0 {
		s.log().Warn("the service does not stop by itself; it was sent "+signalName(sig), "pid", pid)
	}
	return nil
}

// awaitFree waits until nobody runs the service, or enough is true; it fails when ctx ends.
func (s *Service) awaitFree(ctx context.Context, enough func() bool) error {
	w := s.watch()
	defer w.close()
	for {
		pid, running, err := pidfile.Holder(s.PIDFile)
		if err != nil || !running || enough != nil && enough() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.awaitChange(ctx, pid, w); err != nil {
			return err
		}
	}
}

// awaitChange waits for the end of the process that runs the service, or a change of its files.
func (s *Service) awaitChange(ctx context.Context, pid int, w *watcher) error {
	var poll <-chan time.Time
	ended, release := pidfile.Watch(s.PIDFile, pid)
	defer release()
	if ended == nil {
		timer := time.NewTimer(pollInterval)
		defer timer.Stop()
		poll = timer.C
	}
	select {
	case <-ended:
	case <-w.changed:
	case <-poll:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
