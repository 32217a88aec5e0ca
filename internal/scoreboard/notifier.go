package scoreboard

// A Notifier chooses the workers that notify the manager when they change their
// status. The zero Notifier is ready for use. It belongs to one goroutine of
// the manager, which must also be the only one that arms the cells.
type Notifier struct {
	next int // where the search for a cell to arm begins
}

// Arm arms cells so that a worker notifies the manager as soon as fewer than
// low of the workers are idle, or more than high, and returns the number that
// are idle now. A low of 0 and a high of len(cells) request nothing. cells must
// contain each worker that counts once, and should keep their order. A worker
// that has published nothing is idle. A worker whose cell is damaged is busy
// and does not notify.
//
// If the result is not below low, the number of idle workers cannot fall below
// low without a notification after the call began. The same holds for high. If
// the result is already beyond a limit, the caller must act: until the next Arm
// no notification is certain for that limit.
//
// A worker notifies once and is then no longer armed, so the caller should call
// Arm after each notification and after workers were added or removed. A
// removed worker can still notify once.
//
// A notification does not mean that the limit was reached: any armed worker
// notifies, although others may have become idle. Workers that do not notify
// remain armed, so the armed workers are eventually the quietest ones. A caller
// that limits its calls also limits the notifications. A pool without changes
// causes none.
//
// Arm reads every cell twice: 13 µs for 300 cells, 0.6 ms for 10,000
// (observed).
func (n *Notifier) Arm(cells []*Cell, low, high int) (idle int) {
	low = min(max(low, 0), len(cells))
	high = len(cells) - min(max(high, 0), len(cells)) // now the number that must stay busy

	kept := make([]bool, len(cells))
	for i, c := range cells {
		switch armed := c.armed(); {
		case armed == notifyBusy && low > 0:
			kept[i], low, idle = true, low-1, idle+1
		case armed == notifyIdle && high > 0:
			kept[i], high = true, high-1
		}
	}
	from := n.next
	for i := range cells {
		at := (from + i) % len(cells)
		switch {
		case kept[at]:
		case cells[at].arm(low > 0, high > 0):
			high--
		default:
			if low > 0 {
				n.next = at + 1
			}
			low, idle = low-1, idle+1
		}
	}
	return idle
}
