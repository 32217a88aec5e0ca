package top

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// Messages of the feed.
type (
	// statusMsg is a status, or the reason why there is none.
	statusMsg struct {
		at     time.Time
		status *client.Status
		err    error
	}

	// eventMsg is an event to show.
	eventMsg struct{ client.Event }
)

// A feed asks a manager for its status each interval, and sooner after an event.
type feed struct {
	client   *client.Client
	interval time.Duration
	pool     string
	send     func(any)

	soon chan struct{} // an event has changed something
	now  chan struct{} // another process is the manager
}

func newFeed(cfg Config, send func(any)) *feed {
	return &feed{
		client: cfg.Client, interval: cfg.Interval, pool: cfg.Pool, send: send,
		soon: make(chan struct{}, 1), now: make(chan struct{}, 1),
	}
}

// look asks for the status once.
func (f *feed) look(ctx context.Context) statusMsg {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := f.client.Status(ctx, client.StatusOptions{Pool: f.pool, Usage: true})
	return statusMsg{time.Now(), s, err}
}

// lookTimeout is how long a manager may take before it counts as one that does not
// answer.
const lookTimeout = 3 * time.Second

// run looks until ctx ends. After an event it looks sooner, but never more than
// twice an interval.
func (f *feed) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.now:
		case <-f.soon:
			if wait := f.interval/2 - time.Since(last); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		last = time.Now()
		f.send(f.look(ctx))
		timer.Reset(f.interval)
	}
}

// follow passes on the events of the manager and of its successors.
func (f *feed) follow(ctx context.Context) {
	for ctx.Err() == nil {
		upgraded := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.stream(ctx, func() { close(upgraded) })
		}()
		select {
		case <-upgraded:
			wake(f.now)
		case <-ended:
			wake(f.now)
			select {
			case <-time.After(f.interval):
			case <-ctx.Done():
			}
		}
	}
}

// stream passes on the events of one connection.
func (f *feed) stream(ctx context.Context, upgraded func()) {
	for e, err := range f.client.Events(ctx, client.EventsOptions{Pool: f.pool}) {
		if err != nil {
			return
		}
		switch e.Type {
		case client.TypeState, client.TypeBeat:
		case client.TypeLost:
			return
		case client.TypeEnd:
			var why client.End
			if json.Unmarshal(e.Data, &why); why.Reason == client.Upgraded {
				upgraded()
			}
			f.send(eventMsg{e})
		default:
			f.send(eventMsg{e})
			wake(f.soon)
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// isGone reports whether there is no manager any more.
func isGone(err error) bool {
	return errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrLost)
}
