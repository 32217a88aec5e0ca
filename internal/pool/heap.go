package pool

// heap is a binary heap whose items store their own position in it, so that any
// item can be moved or removed in logarithmic time. It differs from
// container/heap in that an order is one function and not a type.
type heap[T any] struct {
	items  []T
	before func(a, b T) bool
	// place returns where an item stores its place in this heap. A place is the
	// index plus one; zero means that the item is not in the heap.
	place func(T) *int
}

func newHeap[T any](before func(a, b T) bool, place func(T) *int) heap[T] {
	return heap[T]{before: before, place: place}
}

func (h *heap[T]) len() int { return len(h.items) }

// first returns the item that sorts before all others. It panics if the heap is
// empty.
func (h *heap[T]) first() T { return h.items[0] }

func (h *heap[T]) contains(x T) bool { return *h.place(x) > 0 }

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	h.up(len(h.items)-1, x)
}

// fix restores the order after the key of x has changed.
func (h *heap[T]) fix(x T) { h.put(*h.place(x)-1, x) }

// remove takes x out of the heap. It is a no-op if x is not in the heap.
func (h *heap[T]) remove(x T) {
	i := *h.place(x) - 1
	if i < 0 {
		return
	}
	*h.place(x) = 0
	last := len(h.items) - 1
	moved := h.items[last]
	h.items[last] = *new(T)
	h.items = h.items[:last]
	if i < last {
		h.put(i, moved)
	}
}

func (h *heap[T]) clear() {
	for _, x := range h.items {
		*h.place(x) = 0
	}
	clear(h.items)
	h.items = h.items[:0]
}

// put stores x at i, or at the index below or above to which its key belongs.
// The item at i is overwritten.
func (h *heap[T]) put(i int, x T) {
	if !h.down(i, x) {
		h.up(i, x)
	}
}

func (h *heap[T]) up(i int, x T) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.before(x, h.items[parent]) {
			break
		}
		h.set(i, h.items[parent])
		i = parent
	}
	h.set(i, x)
}

// down reports whether x belongs below i. If not, it stores nothing.
func (h *heap[T]) down(i int, x T) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.before(h.items[right], h.items[child]) {
			child = right
		}
		if !h.before(h.items[child], x) {
			break
		}
		h.set(i, h.items[child])
		i = child
	}
	if i == start {
		return false
	}
	h.set(i, x)
	return true
}

func (h *heap[T]) set(i int, x T) {
	h.items[i] = x
	*h.place(x) = i + 1
}
