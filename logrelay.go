package prefork

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// relay is the handler of a manager's log. It writes lines as they come, one after the other, and as a rule a line is
// written when its Handle returns. But the loop does not wait for a log that nobody reads (a full pipe, a stopped
// terminal): after relayPatience it goes on, and lines wait for their turn, up to relayLines of them. Those beyond are
// counted, and the log is told of them when it takes lines again.
type relay struct {
	slog.Handler
	queue *relayQueue
}

const (
	relayPatience = 100 * time.Millisecond
	relayLines    = 1000
)

func newRelay(to *slog.Logger) *slog.Logger {
	h := to.Handler()
	return slog.New(&relay{h, &relayQueue{lostLines: func(n int) {
		slog.New(h).Error("lines of the log are lost: nobody took them", "lines", n)
	}}})
}

func (r *relay) Handle(ctx context.Context, line slog.Record) error {
	line = line.Clone()
	r.queue.put(func() { r.Handler.Handle(ctx, line) }) // who could be told of an error?
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
	writes  bool      // the goroutine is there
	began   time.Time // with the line that it writes
	waiting []relayLine
	lost    int
}

type relayLine struct {
	write   func()
	written chan struct{} // closed when it is
}

// put has a line written, and waits for that unless the log stalls.
func (q *relayQueue) put(write func()) {
	line := relayLine{write, make(chan struct{})}
	q.mu.Lock()
	if len(q.waiting) == relayLines {
		q.lost++
		q.mu.Unlock()
		return
	}
	q.waiting = append(q.waiting, line)
	if !q.writes {
		q.writes, q.began = true, time.Now()
		go q.run()
	}
	patience := relayPatience - time.Since(q.began)
	q.mu.Unlock()
	if patience <= 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-line.written:
	case <-timer.C:
	}
}

// run writes what there is. Who waits for a line goes on when it is known what comes next: as a rule nothing.
func (q *relayQueue) run() {
	line, ok := q.next()
	for ok {
		line.write()
		written := line.written
		line, ok = q.next()
		close(written)
	}
}

// next is what is to be written next; false ends the goroutine.
func (q *relayQueue) next() (line relayLine, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.began = time.Now()
	switch {
	case len(q.waiting) > 0:
		line = q.waiting[0]
		q.waiting = q.waiting[1:]
	case q.lost > 0:
		n := q.lost
		q.lost = 0
		line = relayLine{func() { q.lostLines(n) }, make(chan struct{})}
	default:
		q.writes, q.waiting = false, nil
		return line, false
	}
	return line, true
}

// flush waits until all is written, or nothing is for relayPatience.
func (q *relayQueue) flush() {
	for pause := time.Millisecond; ; pause = min(2*pause, relayPatience/4) {
		q.mu.Lock()
		over := !q.writes || time.Since(q.began) > relayPatience
		q.mu.Unlock()
		if over {
			return
		}
		time.Sleep(pause)
	}
}

// flushLog has the log catch up before the program goes on, and ends perhaps.
func (m *Manager) flushLog() {
	if r, ok := m.log.Handler().(*relay); ok {
		r.queue.flush()
	}
}
