package capture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
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

// Workers of several pools share a Capture: each line has the name of its pool, and
// each slot of each pool its last lines.
func TestOpenAs(t *testing.T) {
	out := newMemory()
	c := newCapture(t, Config{Sink: out, Format: Prefix, Name: "own"})
	for i, name := range []string{"web", "db", "own", "web"} {
		w := startAs(t, c, name, i/3, 40+i)
		w.print("one of " + name + "\n")
		preforktest.WaitFor(t, "the line", func() bool { return len(c.TailOf(name, i/3, 9)) == 1 })
		w.end()
	}
	texts := func(lines []Line) (all []string) {
		for _, l := range lines {
			all = append(all, fmt.Sprintf("%s %d %d %s", l.Name, l.Slot, l.PID, l.Text))
		}
		return all
	}
	for _, row := range []struct {
		got  []Line
		want string
	}{
		{c.TailOf("web", 0, 9), "[web 0 40 one of web]"}, {c.TailOf("web", 1, 9), "[web 1 43 one of web]"}, {c.TailOf("web", -1, 1), "[web 1 43 one of web]"},
		{c.TailOf("web", -1, 9), "[web 0 40 one of web web 1 43 one of web]"}, {c.TailOf("db", 0, 9), "[db 0 41 one of db]"}, {c.TailOf("db", 1, 9), "[]"},
		{c.Tail(0, 9), "[own 0 42 one of own]"}, {c.TailOf("none", -1, 9), "[]"}, {c.TailOf("web", -1, 0), "[]"},
	} {
		if got := fmt.Sprint(texts(row.got)); got != row.want {
			t.Errorf("%s, want %s", got, row.want)
		}
	}
	c.Forget("web")
	if got := c.TailOf("web", -1, 9); len(got) > 0 || len(c.TailOf("db", 0, 9)) != 1 {
		t.Errorf("after Forget: %v", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if want := "web[0/40] one of web\ndb[0/41] one of db\nown[0/42] one of own\nweb[1/43] one of web\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
