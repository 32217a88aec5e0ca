package scoreboard

// A Bell decides which workers ring when they change their status. The zero Bell is ready for use. It belongs to one
// goroutine of the manager, and so does arming the cells that it is given.
type Bell struct {
	next int // where the search for one to be armed begins
}

// Post arms cells so that a worker rings as soon as fewer than low of these are idle, or more than high, and returns how
// many are idle now. cells are those of the workers that count, in the same order each time if that can be had, each once.
// A low of 0, and a high of len(cells), ask for nothing. Workers that have published nothing are idle; those whose cell is
// damaged are busy, and do not ring.
//
// If the answer is not below low, then no number below it is reached without a ring that comes after the call began;
// likewise if it is not above high. If it is, the caller is to act: it cannot count on a ring for that side before Post
// is called again. A worker rings once and is then no longer armed: after a ring the caller calls Post again. It should do
// so when cells have come or gone, too. Cells that have gone may still ring, once each.
//
// A ring need not mean that the number was reached: any of the armed workers rings, though others may have become idle
// meanwhile. Those that do not ring stay armed, so that it is the quietest workers which keep watch. A caller that spaces
// its calls bounds what the rest costs; nothing rings in between. In a pool in which nothing changes nothing rings.
//
// It looks at every cell, twice: 13 µs for 300 cells, 0.6 ms for 10,000 (observed).
func (b *Bell) Post(cells []*Cell, low, high int) (idle int) {
	low = min(max(low, 0), len(cells))
	high = len(cells) - min(max(high, 0), len(cells)) // from here on: so many must stay busy

	kept := make([]bool, len(cells))
	for i, c := range cells {
		switch bell := c.armed(); {
		case bell == bellLow && low > 0:
			kept[i], low, idle = true, low-1, idle+1
		case bell == bellHigh && high > 0:
			kept[i], high = true, high-1
		}
	}
	from := b.next
	for i := range cells {
		at := (from + i) % len(cells)
		switch {
		case kept[at]:
		case cells[at].arm(low > 0, high > 0):
			high--
		default:
			if low > 0 {
				b.next = at + 1
			}
			low, idle = low-1, idle+1
		}
	}
	return idle
}
