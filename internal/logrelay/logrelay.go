// Package logrelay keeps a slow log from holding up the manager: a goroutine
// writes the lines, in order, and the manager waits for it only as long as it
// makes progress.
package logrelay

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"
)

const (
	patience = 100 * time.Millisecond // how long the caller waits for one line
	maxLines = 1000                   // lines that wait; those beyond are dropped and counted
	maxAhead = 100                    // lines that may wait before a deferred log waits for them
)

// Relay is the queue behind the two logs that New returns.
type Relay struct{ queue *queue }

// New returns two logs that write to the same handler in one order. The first
// writes each line before its call returns. The second defers its lines until
// the next Flush: if hundreds of workers start or exit at once, switching
// between goroutines for each line would be a good part of their cost.
//
// Neither waits longer than 100 ms for a log that takes no lines, such as a
// full pipe or a stopped terminal. Up to 1,000 lines wait for it. Lines beyond
// that are dropped, and their number is logged when the log takes lines again.
func New(to *slog.Logger) (log, deferred *slog.Logger, r *Relay) {
	h := to.Handler()
	q := &queue{reportDropped: func(n int) {
		slog.New(h).Error("log lines dropped", "lines", n)
	}}
	return slog.New(&handler{h, q, false}), slog.New(&handler{h, q, true}), &Relay{q}
}

// Flush writes the lines that wait. It returns after 100 ms at most.
func (r *Relay) Flush() { r.queue.flush(patience) }

// Finish writes the lines that wait. It returns early only if the log is stuck.
func (r *Relay) Finish() { r.queue.flush(math.MaxInt64) }

type handler struct {
	slog.Handler
	queue    *queue
	deferred bool
}

func (h *handler) Handle(ctx context.Context, line slog.Record) error {
	line = line.Clone()
	// An error of the log cannot be logged.
	many := h.queue.put(func() { h.Handler.Handle(ctx, line) })
	if many || !h.deferred {
		h.queue.flush(patience)
	}
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.queue, h.deferred}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.queue, h.deferred}
}

// queue has a goroutine while there is something to write.
type queue struct {
	reportDropped func(n int)

	mu      sync.Mutex
	written chan struct{} // closed when the goroutine ends; nil while there is none
	began   time.Time     // when it began to write the current line
	waiting []func()
	dropped int
}

// put adds a line, and reports whether many are waiting.
func (q *queue) put(write func()) (many bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == maxLines {
		q.dropped++
	} else {
		q.waiting = append(q.waiting, write)
	}
	return len(q.waiting) >= maxAhead
}

// start starts the goroutine if lines are waiting. It returns a channel that is
// closed when they are written, and how long the current line may still take.
func (q *queue) start() (written <-chan struct{}, left time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.written == nil && len(q.waiting) > 0 {
		q.written, q.began = make(chan struct{}), time.Now()
		go q.run()
	}
	return q.written, patience - time.Since(q.began)
}

func (q *queue) run() {
	for write := q.next(); write != nil; write = q.next() {
		write()
	}
}

// next returns the next line to write; nil ends the goroutine.
func (q *queue) next() (write func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.began = time.Now()
	switch {
	case len(q.waiting) > 0:
		write = q.waiting[0]
		q.waiting = q.waiting[1:]
	case q.dropped > 0:
		n := q.dropped
		q.dropped = 0
		write = func() { q.reportDropped(n) }
	default:
		close(q.written)
		q.written, q.waiting = nil, nil
	}
	return write
}

// flush waits until all lines are written, for most at the longest, and only
// while no line takes longer than patience.
func (q *queue) flush(most time.Duration) {
	for began := time.Now(); ; {
		written, left := q.start()
		left = min(left, most-time.Since(began))
		if written == nil || left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-written:
		case <-timer.C: // the line may have been written since; start looks again
		}
		timer.Stop()
	}
}
