//go:build unix

package scoreboard

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzCell: whatever a worker writes into its cell, and whenever, the manager reads something that it can use, arms others
// all the same, and counts no more than there is.
func FuzzCell(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, size), 1, 1)
	f.Add(make([]byte, size), 2, 0)
	f.Add(append(make([]byte, 8), "R\x01\x01\x00\x00\x00\x00\x00_\x03"...), 1, 2)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, '_', 3, 0, 0, 0, 0, 0, 0}, 4), 0, 0)
	f.Fuzz(func(t *testing.T, data []byte, low, high int) {
		rings := 0
		ring := func() { rings++ }
		bad, good := memory(t), memory(t)
		liar, honest := &Writer{bad.page, ring}, &Writer{good.page, ring}
		cells := []*Cell{bad, good}
		var bell Bell
		var watch Watch
		last := Status{C: None}
		for now := time.Duration(0); ; now++ {
			idle := bell.Post(cells, low, high)
			s := bad.Read()
			if idle < 0 || idle > 2 {
				t.Fatalf("%d of 2 idle", idle)
			}
			if s.Served < last.Served || s.Served > maxCount || s.Damaged && s.C != '?' || last.Damaged && s != last {
				t.Fatalf("%+v after %+v", s, last)
			}
			if quiet := watch.Look(s, now); quiet < 0 || quiet > now || quiet > 0 && !s.Busy() {
				t.Fatalf("%+v quiet for %v at %v", s, quiet, now)
			}
			if got := good.Read(); got != (Status{C: None}) {
				t.Fatalf("the other cell: %+v", got)
			}
			last = s
			if len(data) == 0 {
				break
			}
			n := copy(bad.bytes(), data)
			data = data[n:]
		}
		before := rings
		idle := bell.Post(cells, 2, 2)
		honest.Set('R')
		if rings != before+1 {
			t.Errorf("%d rings of an armed worker, with %d idle", rings-before, idle)
		}
		liar.Set('R') // ends, whatever the memory holds
	})
}

// memory is a cell whose descriptor is closed already, as in a manager.
func memory(t *testing.T) *Cell {
	c, fd := newCell(t)
	unix.Close(fd)
	return c
}
