package preforktest

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A Load is clients that send requests to a program from outside, one after the other each, while a test has something happen to
// the program.
type Load struct {
	t       testing.TB
	stop    chan struct{}
	clients sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every request that is done
	result  LoadResult
}

// LoadResult is what came of the requests.
type LoadResult struct {
	Requests int           // that were done, with or without an error
	Errors   []error       // of those that failed: the first thousand
	Failed   int           // how many there were
	Longest  time.Duration // that a request took
}

// String is the result in one line.
func (r LoadResult) String() string {
	s := fmt.Sprintf("%d requests, %d failed, the longest took %v", r.Requests, r.Failed, r.Longest.Round(time.Millisecond))
	if len(r.Errors) > 0 {
		s += fmt.Sprintf("; the first error: %v", r.Errors[0])
	}
	return s
}

// StartLoad has so many clients call request again and again, until Stop, which is called when the test ends at the latest. The
// number of the client is passed on: of one client no two requests are under way. A client does not pause, unless
// request does; it goes on after an error.
func StartLoad(t testing.TB, clients int, request func(client int) error) *Load {
	l := &Load{t: t, stop: make(chan struct{}), changed: make(chan struct{})}
	for i := range clients {
		l.clients.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
					began := time.Now()
					l.done(request(i), time.Since(began))
				}
			}
		})
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

func (l *Load) done(err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Requests++
	l.result.Longest = max(l.result.Longest, took)
	if err != nil {
		l.result.Failed++
		if len(l.result.Errors) < 1000 {
			l.result.Errors = append(l.result.Errors, err)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Await waits until n more requests are done, and fails the test if that takes too long.
func (l *Load) Await(n int) {
	l.t.Helper()
	timeout := time.NewTimer(waitLimit(l.t))
	defer timeout.Stop()
	first := -1
	for {
		l.mu.Lock()
		done, changed := l.result.Requests, l.changed
		l.mu.Unlock()
		if first < 0 {
			first = done
		}
		if done-first >= n {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			l.t.Fatalf("preforktest: load: %d of %d requests were done", done-first, n)
		}
	}
}

// Stop ends the load, when the requests that are under way are done, and returns what came of all.
func (l *Load) Stop() LoadResult {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}
