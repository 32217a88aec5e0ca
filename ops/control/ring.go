package control

import (
	"sync"
	"sync/atomic"

	"github.com/prefork-go/prefork"
)

// ringSize is how many events are kept.
const ringSize = 1024

// A ring keeps the last events of all pools. Adding one never waits for a reader,
// and encodes nothing: the loop of a Manager does it.
type ring struct {
	mu      sync.Mutex
	next    uint64 // number of the next entry; those before next-ringSize are gone
	entries [ringSize]*entry
	wake    chan struct{} // closed by the next add; nil if no reader waits
}

// An entry is an event in the ring.
type entry struct {
	prefork.Record
	pool *pool

	// The pool has come or left. Then notice is the event.
	come, left bool
	notice     []byte

	json atomic.Pointer[[]byte] // the encoded event, made by the first reader
}

func (r *ring) add(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[r.next%ringSize] = e
	r.next++
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// end returns the number of the next entry.
func (r *ring) end() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// begin returns the number of the oldest entry.
func (r *ring) begin() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.oldest()
}

func (r *ring) oldest() uint64 { return r.next - min(r.next, ringSize) }

// read appends the entries from a number on to buf, at most its capacity. If there
// are none, changed is closed when there are. It reports lost if the entry of that
// number is gone.
func (r *ring) read(from uint64, buf []*entry) (entries []*entry, changed <-chan struct{}, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.oldest() {
		return nil, nil, true
	}
	for ; from < r.next && len(buf) < cap(buf); from++ {
		buf = append(buf, r.entries[from%ringSize])
	}
	if len(buf) == 0 {
		if r.wake == nil {
			r.wake = make(chan struct{})
		}
		changed = r.wake
	}
	return buf, changed, false
}
