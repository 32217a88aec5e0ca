package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// await waits until a condition holds. It evaluates the condition after events. It
// returns errSuperseded when superseded is closed.
func (s *server) await(ctx context.Context, superseded <-chan struct{}, holds func() bool) error {
	var buf [1]*entry
	for at := s.ring.end(); ; {
		if holds() {
			return nil
		}
		_, changed, lost := s.ring.read(at, buf[:0])
		if lost || changed == nil { // there were events since
			changed = closed
		}
		select {
		case <-changed:
		case <-time.After(awaitAgain): // the blocking call, for one, changes without an event
		case <-ctx.Done():
			return ctx.Err()
		case <-superseded:
			return errSuperseded
		case <-s.closing:
			return context.Canceled
		}
		at = s.ring.end()
		select { // many events come together
		case <-time.After(awaitPause):
		case <-ctx.Done():
		}
	}
}

// awaitState waits until a condition on the state of each pool holds.
func (s *server) awaitState(ctx context.Context, pools []*pool, holds func(prefork.Snapshot) bool) error {
	return s.await(ctx, s.superseded, func() bool { return holdNow(ctx, pools, holds) })
}

// holdNow reports whether a condition holds in each pool. A state from before the
// call, and so from before an event, does not count. A pool that has gone does not
// count either.
func holdNow(ctx context.Context, pools []*pool, holds func(prefork.Snapshot) bool) bool {
	now := time.Now()
	for _, p := range pools {
		if p.gone.Load() {
			continue
		}
		if snap, err := p.stateAfter(ctx, now); err != nil || !holds(snap) {
			return false
		}
	}
	return true
}

const (
	awaitPause = 5 * time.Millisecond // bounds how often await evaluates a condition
	awaitAgain = 500 * time.Millisecond
)

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// settled waits until a change that was asked for is in effect and the pool is
// settled.
func (s *server) settled(ctx context.Context, p *pool) (prefork.Snapshot, error) {
	for range 2 { // the first turn may have begun before
		if err := p.pm.Ping(ctx); err != nil {
			return prefork.Snapshot{}, err
		}
	}
	return s.whileRunning(ctx, p, func(now prefork.Snapshot) bool { return now.Settled })
}

// errStopping is the answer to a command that needs a pool which goes on.
var errStopping = errors.New("the Manager shuts down")

// whileRunning waits until a condition on the state of a pool holds. It fails if a
// shutdown has begun, or begins.
func (s *server) whileRunning(ctx context.Context, p *pool, holds func(prefork.Snapshot) bool) (snap prefork.Snapshot, err error) {
	err = s.awaitState(ctx, []*pool{p}, func(now prefork.Snapshot) bool {
		snap = now
		return holds(now) || !now.Stopping.IsZero()
	})
	if err == nil && p.gone.Load() {
		return snap, errGone
	}
	if err == nil && !snap.Stopping.IsZero() {
		err = errStopping
	}
	return snap, err
}

func (x *exchange) wait() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	timeout, err := x.duration("timeout", waitTimeout)
	if err != nil {
		return err
	}
	state := x.query.Get("for")
	holds, err := condition(state)
	if err != nil {
		return err
	}
	began := time.Now()
	ctx, cancel := x.untilGone(timeout)
	defer cancel()
	err = x.await(ctx, x.superseded, func() bool {
		if x.cfg.Services == nil || x.query.Has("pool") || state != "ready" && state != "settled" {
			return holdNow(ctx, pools, holds)
		}
		return x.holdForServices(ctx, state, holds)
	})
	if p := x.handedOver(); p != nil {
		return p
	}
	a := client.Answer{Command: "wait", Outcome: client.Done, Seconds: seconds(time.Since(began)), Text: state}
	switch {
	case err == nil && x.query.Has("pool") && pools[0].gone.Load():
		return problemf(404, "pool %.60q has gone", pools[0].name)
	case err == nil: // a status that is made after that is not of an older state
	case x.isClosing():
		return problemf(503, client.Ending)
	case errors.Is(err, context.DeadlineExceeded):
		a.Outcome, a.Text, a.Error = client.Pending, "", fmt.Sprintf("not %s within %v", state, timeout)
	default:
		return err
	}
	return answerJSON(x.w, codeOf(&a), a)
}

// holdForServices is holdNow for a program that keeps services, which come and go.
func (s *server) holdForServices(ctx context.Context, state string, holds func(prefork.Snapshot) bool) bool {
	if !s.cfg.Services.Started() {
		return false
	}
	s.mu.Lock()
	pools := s.pools
	s.mu.Unlock()
	if state == "ready" {
		var names []string
		if names, pools = s.unready(); len(names) > 0 {
			return false
		}
	}
	return holdNow(ctx, pools, holds)
}

// condition returns the condition of a state that a client waits for.
func condition(state string) (func(prefork.Snapshot) bool, error) {
	generation, reloaded := strings.CutPrefix(state, "reloaded>")
	switch {
	case state == "ready":
		return isReady, nil
	case state == "settled":
		return func(s prefork.Snapshot) bool { return s.Settled }, nil
	case state == "paused":
		return func(s prefork.Snapshot) bool { return s.AllPaused() && s.Stopping.IsZero() }, nil
	case state == "running":
		return func(s prefork.Snapshot) bool { return s.Loop.Call != "" && s.Generation > 0 && s.Stopping.IsZero() }, nil
	case reloaded:
		if n, err := strconv.Atoi(generation); err == nil {
			return func(s prefork.Snapshot) bool { return s.Settled && s.Serving > n }, nil
		}
	}
	return nil, problemf(400, "for=%.40q is none of ready, settled, reloaded>N, paused and running", state)
}
