//go:build unix

package scoreboard

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzCell writes any bytes into a cell. The manager must still read a valid
// status, arm the other cell, and count no more workers than there are.
func FuzzCell(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, size), 1, 1)
	f.Add(make([]byte, size), 2, 0)
	f.Add(append(make([]byte, 8), "R\x01\x01\x00\x00\x00\x00\x00_\x03"...), 1, 2)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, '_', 3, 0, 0, 0, 0, 0, 0}, 4), 0, 0)
	f.Fuzz(func(t *testing.T, data []byte, low, high int) {
		notifications := 0
		notify := func() { notifications++ }
		badCell, goodCell := unlinkedCell(t), unlinkedCell(t)
		bad, good := &Writer{badCell.page, notify}, &Writer{goodCell.page, notify}
		cells := []*Cell{badCell, goodCell}
		var notifier Notifier
		check := statusChecker(t)
		for more := true; more; {
			if idle := notifier.Arm(cells, low, high); idle < 0 || idle > 2 {
				t.Fatalf("%d of 2 idle", idle)
			}
			check(badCell.Read())
			if got := goodCell.Read(); got != (Status{C: None}) {
				t.Fatalf("the other cell: %+v", got)
			}
			more = len(data) > 0
			data = data[copy(badCell.bytes(), data):]
		}
		before := notifications
		idle := notifier.Arm(cells, 2, 2)
		good.Set('R')
		if notifications != before+1 {
			t.Errorf("%d notifications from an armed worker, with %d idle", notifications-before, idle)
		}
		bad.Set('R') // returns for any content
	})
}

// statusChecker returns a function that checks the next status of a cell.
func statusChecker(t *testing.T) func(s Status) {
	var stall Stall
	last, now := Status{C: None}, time.Duration(0)
	return func(s Status) {
		t.Helper()
		if s.Served < last.Served || s.Served > maxCount || s.Damaged && s.C != '?' || last.Damaged && s != last {
			t.Fatalf("%+v after %+v", s, last)
		}
		if stalled := stall.Observe(s, now); stalled < 0 || stalled > now || stalled > 0 && !s.Busy() {
			t.Fatalf("%+v stalled for %v at %v", s, stalled, now)
		}
		last = s
		now++
	}
}

// unlinkedCell returns a cell whose descriptor is closed, as in a manager.
func unlinkedCell(t *testing.T) *Cell {
	c, fd := newCell(t)
	unix.Close(fd)
	return c
}
