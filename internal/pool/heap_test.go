package pool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type heapItem struct {
	key   int
	place int
}

func newItemHeap() heap[*heapItem] {
	return newHeap(
		func(a, b *heapItem) bool { return a.key < b.key },
		func(x *heapItem) *int { return &x.place },
	)
}

// checkHeap checks the order of a heap and the place that each item stores.
func checkHeap(t *testing.T, h *heap[*heapItem]) {
	t.Helper()
	for i, x := range h.items {
		if x.place != i+1 {
			t.Fatalf("the item at %d stores the place %d", i, x.place)
		}
		if parent := (i - 1) / 2; i > 0 && h.before(x, h.items[parent]) {
			t.Fatalf("the item at %d sorts before its parent: %d < %d", i, x.key, h.items[parent].key)
		}
	}
}

func TestHeapPopsInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	h := newItemHeap()
	var keys, popped []int
	for range 200 {
		keys = append(keys, random.IntN(100))
		h.push(&heapItem{key: keys[len(keys)-1]})
		checkHeap(t, &h)
	}
	for h.len() > 0 {
		x := h.first()
		popped = append(popped, x.key)
		h.remove(x)
		want(t, "popped item is in the heap", h.contains(x), false)
		checkHeap(t, &h)
	}
	slices.Sort(keys)
	wantAll(t, "popped", popped, keys...)
}

// Any item can be moved and removed, and the rest stays in order.
func TestHeapRandomOperations(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	h := newItemHeap()
	var in []*heapItem
	for range 5000 {
		switch op := random.IntN(4); {
		case op < 2 || len(in) == 0:
			in = append(in, &heapItem{key: random.IntN(50)})
			h.push(in[len(in)-1])
		case op == 2:
			x := in[random.IntN(len(in))]
			x.key = random.IntN(50)
			h.fix(x)
		default:
			i := random.IntN(len(in))
			h.remove(in[i])
			want(t, "removed item is in the heap", h.contains(in[i]), false)
			in = slices.Delete(in, i, i+1)
		}
		checkHeap(t, &h)
		want(t, "items", h.len(), len(in))
		if h.len() > 0 {
			least := slices.MinFunc(in, func(a, b *heapItem) int { return a.key - b.key })
			want(t, "first key", h.first().key, least.key)
		}
	}
}

func TestHeapRemoveOfAbsentItem(t *testing.T) {
	h := newItemHeap()
	x, y := &heapItem{key: 1}, &heapItem{key: 2}
	h.remove(x) // empty
	h.push(x)
	h.remove(y)
	want(t, "items", h.len(), 1)
	h.remove(x)
	h.remove(x)
	want(t, "items", h.len(), 0)
}

func TestHeapClear(t *testing.T) {
	h := newItemHeap()
	items := []*heapItem{{key: 3}, {key: 1}, {key: 2}}
	for _, x := range items {
		h.push(x)
	}
	h.clear()
	want(t, "items", h.len(), 0)
	for _, x := range items {
		want(t, "cleared item is in the heap", h.contains(x), false)
		h.push(x)
	}
	checkHeap(t, &h)
	want(t, "first key", h.first().key, 1)
}

// A worker is in several heaps at once, each with a place of its own.
func TestHeapsHavePlacesOfTheirOwn(t *testing.T) {
	deadlines, ages, idle := newDeadlineHeap(), newAgeHeap(), newIdleHeap()
	a, b := &worker{id: 1, deadline: 1, recycleAt: 2}, &worker{id: 2, deadline: 2, recycleAt: 1}
	for _, w := range []*worker{a, b} {
		deadlines.push(w)
		ages.push(w)
		idle.push(w)
	}
	want(t, "first deadline", deadlines.first(), a)
	want(t, "oldest", ages.first(), b)
	want(t, "youngest idle", idle.first(), b)
	ages.remove(b)
	want(t, "still has a deadline", deadlines.contains(b), true)
	want(t, "still idle", idle.contains(b), true)
	want(t, "oldest", ages.first(), a)
}
