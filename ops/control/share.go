package control

import (
	"context"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
)

// sharePeriod is how long the state of a pool is shared by all who ask and wait,
// so that no number of clients keeps the loop of its Manager busy.
const sharePeriod = 20 * time.Millisecond

// A sharedState is the last state of a pool that was taken.
type sharedState struct {
	mu   sync.Mutex // also held while one is taken: others wait for that one
	snap prefork.Snapshot
	at   time.Time // when it was taken; zero for none
}

// state returns a state of the pool that is at most sharePeriod old, and when it
// was taken. It is shared and must not be changed.
func (p *pool) state() (prefork.Snapshot, time.Time) {
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	if time.Since(p.shared.at) >= sharePeriod {
		at := time.Now()
		p.shared.snap = p.pm.Snapshot()
		p.shared.at = at
	}
	return p.shared.snap, p.shared.at
}

// stateAfter returns a state that was taken after a moment. It waits for that if the
// shared one is older, until ctx ends.
func (p *pool) stateAfter(ctx context.Context, moment time.Time) (prefork.Snapshot, error) {
	for {
		snap, at := p.state()
		if at.After(moment) {
			return snap, nil
		}
		select {
		case <-time.After(time.Until(at.Add(sharePeriod))):
		case <-ctx.Done():
			return snap, ctx.Err()
		}
	}
}

// forget has the next who asks get a new state, after a command. It leaves pings
// alone: one that is under way may hold its lock for a while.
func (s *server) forget() {
	for _, p := range s.all() {
		p.shared.mu.Lock()
		p.shared.at = time.Time{}
		p.shared.mu.Unlock()
	}
}

// A sharedPing is the last answer of a Manager's loop.
type sharedPing struct {
	mu  sync.Mutex // also held while one is awaited
	at  time.Time
	err error
}

// ping returns nil if the loop has turned within pingTimeout.
func (p *pool) ping() error {
	p.pinged.mu.Lock()
	defer p.pinged.mu.Unlock()
	if time.Since(p.pinged.at) >= sharePeriod {
		ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
		defer cancel()
		p.pinged.err = p.pm.Ping(ctx)
		p.pinged.at = time.Now()
	}
	return p.pinged.err
}
