package control

import (
	"testing"

	"github.com/prefork-go/prefork"
)

func addTo(r *ring, from, to int) {
	for i := from; i <= to; i++ {
		r.add(&entry{Record: prefork.Record{Seq: uint64(i)}})
	}
}

func TestRing(t *testing.T) {
	var r ring
	var buf [3]*entry
	entries, changed, lost := r.read(0, buf[:0])
	if len(entries) != 0 || changed == nil || lost {
		t.Fatalf("an empty ring: %v, %v, %t", entries, changed, lost)
	}
	addTo(&r, 1, 2)
	select {
	case <-changed:
	default:
		t.Error("the reader is not woken")
	}
	if entries, changed, lost = r.read(0, buf[:0]); len(entries) != 2 || entries[1].Seq != 2 || changed != nil || lost {
		t.Errorf("2 events: %v, %v, %t", entries, changed, lost)
	}
	addTo(&r, 3, ringSize)
	if entries, _, lost = r.read(0, buf[:0]); len(entries) != 3 || entries[0].Seq != 1 || lost {
		t.Errorf("a full ring: %v, %t", entries, lost)
	}
	addTo(&r, ringSize+1, ringSize+1)
	if _, _, lost = r.read(0, buf[:0]); !lost || r.begin() != 1 || r.end() != ringSize+1 {
		t.Errorf("after one more: lost %t, from %d to %d", lost, r.begin(), r.end())
	}
	if entries, _, lost = r.read(ringSize, buf[:0]); len(entries) != 1 || entries[0].Seq != ringSize+1 || lost {
		t.Errorf("the last one: %v, %t", entries, lost)
	}
	if _, changed, lost = r.read(ringSize+1, buf[:0]); changed == nil || lost {
		t.Errorf("at the end: %v, %t", changed, lost)
	}
}
