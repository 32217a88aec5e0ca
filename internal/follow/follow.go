// Package follow numbers the records of a manager and passes them to the
// functions that follow it: each record once, in order, to each function that
// was added before it.
package follow

import (
	"slices"
	"sync/atomic"
)

// A Feed has the functions that follow. The zero value has none. Its methods are
// not safe for concurrent use. The owner calls them while it holds the lock of
// the state that the records describe: a function is then added between two
// records, and the state has exactly those before it.
type Feed[R any] struct {
	seq       uint64
	followers Followers[R] // never changed in place
}

// Followers are the functions that get one record.
type Followers[R any] []*follower[R]

type follower[R any] struct {
	f       func(R)
	stopped atomic.Bool
}

// Next returns the number of the next record, from 1, and the functions that get
// it.
func (d *Feed[R]) Next() (seq uint64, to Followers[R]) {
	d.seq++
	return d.seq, d.followers
}

// Seq returns the number of the last record, zero for none.
func (d *Feed[R]) Seq() uint64 { return d.seq }

// Add adds a function. The returned function removes it; like the methods, it
// needs the owner's lock, and a second call is a no-op.
func (d *Feed[R]) Add(f func(R)) (remove func()) {
	added := &follower[R]{f: f}
	d.followers = append(slices.Clip(d.followers), added)
	return func() {
		added.stopped.Store(true)
		d.followers = slices.DeleteFunc(slices.Clone(d.followers), func(x *follower[R]) bool { return x == added })
	}
}

// Send calls the functions with a record, except for those that were removed
// since. It needs no lock.
func (all Followers[R]) Send(r R) {
	for _, x := range all {
		if !x.stopped.Load() {
			x.f(r)
		}
	}
}
