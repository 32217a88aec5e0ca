package prefork

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// relay is the handler of a manager's log. A goroutine writes its lines, one after the other, and the loop waits for that
// before it sleeps and before it calls a hook (flush), not after each line: where hundreds of workers start or end at
// once, that is a good part of what each costs.
//
// Nor does the loop wait for a log that nobody reads (a full pipe, a stopped terminal): after relayPatience it goes on,
// and lines wait for their turn, up to relayLines of them. Those beyond are counted, and the log is told of them when it
// takes lines again.
type relay struct {
	slog.Handler
	queue *relayQueue
}

const (
	relayPatience = 100 * time.Millisecond
	relayLines    = 1000
	relayAhead    = 100 // lines that may wait before who logs waits for them
)

func newRelay(to *slog.Logger) *slog.Logger {
	h := to.Handler()
	return slog.New(&relay{h, &relayQueue{lostLines: func(n int) {
		slog.New(h).Error("lines of the log are lost: nobody took them", "lines", n)
	}}})
}

func (r *relay) Handle(ctx context.Context, line slog.Record) error {
	line = line.Clone()
	if r.queue.put(func() { r.Handler.Handle(ctx, line) }) { // who could be told of an error?
		r.queue.flush()
	}
	return nil
}

func (r *relay) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &relay{r.Handler.WithAttrs(attrs), r.queue}
}

func (r *relay) WithGroup(name string) slog.Handler {
	return &relay{r.Handler.WithGroup(name), r.queue}
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

// put has a line written, and tells whether many are waiting.
func (q *relayQueue) put(write func()) (many bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == relayLines {
		q.lost++
		return true
	}
	q.waiting = append(q.waiting, write)
	if q.written == nil {
		q.written, q.began = make(chan struct{}), time.Now()
		go q.run()
	}
	return len(q.waiting) >= relayAhead
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

// flush waits until all is written, or a line takes relayPatience.
func (q *relayQueue) flush() {
	for {
		q.mu.Lock()
		written, patience := q.written, relayPatience-time.Since(q.began)
		q.mu.Unlock()
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

// flushLog has the log catch up before the loop sleeps, the program's own code runs, or a blocking call returns.
func (m *Manager) flushLog() {
	if r, ok := m.log.Handler().(*relay); ok {
		r.queue.flush()
	}
}
