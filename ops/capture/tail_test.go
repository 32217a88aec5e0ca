package capture

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// A tail has the same lines as a slice of all lines that is cut at the limits.
func TestTail(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 5 {
		var all []Line
		tl := &tail{slot: 5}
		if got := tl.last(3, 0); got != nil {
			t.Fatal(got)
		}
		longest := []int{1, 30, 700, 9000, maxTailBytes}[round%5]
		for range 250 {
			pid := 1 + random.IntN(2)
			text := strings.Repeat(string(rune('a'+random.IntN(26))), random.IntN(longest+1))
			e := entry{pid: pid, stream: Stderr, continued: pid == 2}
			tl.add(e, []byte(text))
			all = append(all, Line{Slot: 5, PID: pid, Stream: Stderr, Continued: pid == 2, Text: text})
			if used(all) > maxTailBytes || len(all) > maxTailLines {
				for used(all) > maxTailBytes || len(all) > maxTailLines {
					all = all[1:]
				}
			}
			for _, pid := range []int{0, 1 + random.IntN(3)} {
				n := random.IntN(120)
				var want []Line
				for _, l := range all {
					if pid == 0 || l.PID == pid {
						want = append(want, l)
					}
				}
				want = want[max(0, len(want)-n):]
				got := tl.last(n, pid)
				if len(got) != len(want) {
					t.Fatalf("%d lines of process %d, want %d", len(got), pid, len(want))
				}
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("line %d: %v, want %v", i, got[i], want[i])
					}
				}
			}
		}
		if len(tl.data) > maxTailBytes {
			t.Errorf("%d bytes are kept", len(tl.data))
		}
	}
}

func used(lines []Line) (n int) {
	for _, l := range lines {
		n += len(l.Text)
	}
	return n
}

// A line that does not change the size of an empty ring is kept, too.
func TestTailOfEmptyLines(t *testing.T) {
	tl := new(tail)
	for range maxTailLines + 5 {
		tl.add(entry{}, nil)
	}
	if got := tl.last(1000, 0); len(got) != maxTailLines {
		t.Errorf("%d lines", len(got))
	}
}
