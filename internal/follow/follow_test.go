package follow

import (
	"slices"
	"testing"
)

// A function gets exactly the records after it was added, and none after it was
// removed, not even one that was numbered before.
func TestFeed(t *testing.T) {
	var d Feed[uint64]
	got := make(map[string][]uint64)
	emit := func() {
		seq, to := d.Next()
		to.Send(seq)
	}
	add := func(name string) (remove func()) {
		return d.Add(func(seq uint64) { got[name] = append(got[name], seq) })
	}
	emit()
	removeA := add("a")
	emit()
	removeB := add("b")
	emit()
	seq, to := d.Next()
	removeA()
	add("c")
	to.Send(seq)
	emit()
	removeB()
	removeB()
	emit()
	for name, want := range map[string][]uint64{"a": {2, 3}, "b": {3, 4, 5}, "c": {5, 6}} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s got the records %v, want %v", name, got[name], want)
		}
	}
	if d.Seq() != 6 {
		t.Errorf("the last record is number %d, want 6", d.Seq())
	}
}

// A function may remove itself, and add another, while it is called.
func TestFeedChangesInACall(t *testing.T) {
	var d Feed[uint64]
	calls, later := 0, 0
	var remove func()
	remove = d.Add(func(uint64) {
		calls++
		remove()
		d.Add(func(uint64) { later++ })
	})
	for range 3 {
		seq, to := d.Next()
		to.Send(seq)
	}
	if calls != 1 || later != 2 {
		t.Errorf("%d and %d calls, want 1 and 2", calls, later)
	}
}
