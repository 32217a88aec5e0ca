package prefork

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"
)

// relay is the handler of a manager's log. A goroutine writes its lines, one after the other, and as a rule a line is
// written when its Handle returns. What the loop says of its workers is written before it sleeps and before it calls a
// hook (flush), and not line by line: where hundreds start or end at once, to change between goroutines for each line is a
// good part of what a worker costs.
//
// Nor does the loop wait for a log that nobody reads (a full pipe, a stopped terminal): after relayPatience it goes on,
// and lines wait for their turn, up to relayLines of them. Those beyond are counted, and the log is told of them when it
// takes lines again.
type relay struct {
	slog.Handler
	queue *relayQueue
	later bool // lines wait until there is a flush
}

const (
	relayPatience = 100 * time.Millisecond
	relayLines    = 1000
	relayAhead    = 100 // lines that may wait before who logs waits for them
)

// newRelay returns a log whose lines are written at once, and one, for the loop, whose lines may wait for the next flush.
// They share a queue, and so keep their order.
func newRelay(to *slog.Logger) (log, events *slog.Logger) {
	h := to.Handler()
	queue := &relayQueue{lostLines: func(n int) {
		slog.New(h).Error("lines of the log are lost: nobody took them", "lines", n)
	}}
	return slog.New(&relay{h, queue, false}), slog.New(&relay{h, queue, true})
}

func (r *relay) Handle(ctx context.Context, line slog.Record) error {
	line = line.Clone()
	many := r.queue.put(func() { r.Handler.Handle(ctx, line) }) // who could be told of an error?
	if many || !r.later {
		r.queue.flush(relayPatience)
	}
	return nil
}

func (r *relay) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &relay{r.Handler.WithAttrs(attrs), r.queue, r.later}
}

func (r *relay) WithGroup(name string) slog.Handler {
	return &relay{r.Handler.WithGroup(name), r.queue, r.later}
}

// A relayQueue has a goroutine while there is something to write.
type relayQueue struct {
	lostLines func(n int)

	mu      sync.Mutex
	written chan struct{} // closed when the goroutine ends; nil while there is none
	began   time.Time     // with the line that it writes
	waiting []func()
	lost    int
}

// put adds a line, and tells whether many are waiting.
func (q *relayQueue) put(write func()) (many bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == relayLines {
		q.lost++
	} else {
		q.waiting = append(q.waiting, write)
	}
	return len(q.waiting) >= relayAhead
}

// start has what waits written. It returns when that will have happened, and how long one who waits for it has patience.
func (q *relayQueue) start() (written <-chan struct{}, patience time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.written == nil && len(q.waiting) > 0 {
		q.written, q.began = make(chan struct{}), time.Now()
		go q.run()
	}
	return q.written, relayPatience - time.Since(q.began)
}

func (q *relayQueue) run() {
	for write := q.next(); write != nil; write = q.next() {
		write()
	}
}

// next is what is to be written next; nil ends the goroutine.
func (q *relayQueue) next() (write func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.began = time.Now()
	switch {
	case len(q.waiting) > 0:
		write = q.waiting[0]
		q.waiting = q.waiting[1:]
	case q.lost > 0:
		n := q.lost
		q.lost = 0
		write = func() { q.lostLines(n) }
	default:
		close(q.written)
		q.written, q.waiting = nil, nil
	}
	return write
}

// flush has all written, and waits for that, for most at the longest, and no longer than a line takes relayPatience.
func (q *relayQueue) flush(most time.Duration) {
	for began := time.Now(); ; {
		written, patience := q.start()
		patience = min(patience, most-time.Since(began))
		if written == nil || patience <= 0 {
			return
		}
		timer := time.NewTimer(patience)
		select {
		case <-written:
		case <-timer.C: // perhaps of a line that was written meanwhile
		}
		timer.Stop()
	}
}

// flushLog has the log catch up before the loop sleeps, or the program's own code runs. A slow log holds the loop up for
// relayPatience, whatever waits.
func (m *Manager) flushLog() { m.flushWithin(relayPatience) }

// finishLog has the log catch up before a blocking call returns: for as long as it takes, while it goes on.
func (m *Manager) finishLog() { m.flushWithin(math.MaxInt64) }

func (m *Manager) flushWithin(most time.Duration) {
	if r, ok := m.log.Handler().(*relay); ok {
		r.queue.flush(most)
	}
}
