package preforktest

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A Load is a number of clients that send requests to a program while a test
// does something else to it. StartLoad makes one.
type Load struct {
	t       testing.TB
	stop    chan struct{}
	clients sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced after each request
	result  LoadResult
}

// LoadResult counts the requests of a Load.
type LoadResult struct {
	Requests int           // finished requests, failed ones included
	Errors   []error       // errors of the first thousand failed requests
	Failed   int           // failed requests
	Longest  time.Duration // duration of the longest request
}

// String returns the result in one line.
func (r LoadResult) String() string {
	s := fmt.Sprintf("%d requests, %d failed, longest %v",
		r.Requests, r.Failed, r.Longest.Round(time.Millisecond))
	if len(r.Errors) > 0 {
		s += fmt.Sprintf(", first error: %v", r.Errors[0])
	}
	return s
}

// maxLoadErrors bounds LoadResult.Errors.
const maxLoadErrors = 1000

// StartLoad starts clients that call request repeatedly until Stop, which is
// also called when the test ends. The argument of request is the number of the
// client, from 0. Each client has one request in flight at a time. It does not
// pause between requests and continues after an error.
func StartLoad(t testing.TB, clients int, request func(client int) error) *Load {
	l := &Load{t: t, stop: make(chan struct{}), changed: make(chan struct{})}
	for i := range clients {
		l.clients.Go(func() {
			for !waitClosed(l.stop, 0) {
				began := time.Now()
				err := request(i)
				l.record(err, time.Since(began))
			}
		})
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

func (l *Load) record(err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Requests++
	l.result.Longest = max(l.result.Longest, took)
	if err != nil {
		l.result.Failed++
		if len(l.result.Errors) < maxLoadErrors {
			l.result.Errors = append(l.result.Errors, err)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Await waits until n more requests are finished. It fails the test if that
// takes too long.
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
			l.t.Fatalf("preforktest: load: %d of %d requests finished", done-first, n)
		}
	}
}

// Stop stops the clients, waits for the requests in flight, and returns the
// result of all requests. Further calls return the same result.
func (l *Load) Stop() LoadResult {
	l.mu.Lock()
	if !waitClosed(l.stop, 0) {
		close(l.stop)
	}
	l.mu.Unlock()
	l.clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}
