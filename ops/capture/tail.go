package capture

import (
	"sync"
	"time"
)

const (
	maxTailLines = 100
	maxTailBytes = 64 << 10
	minTailBytes = 1 << 10
)

// A tail keeps the last lines of a slot: up to maxTailLines, with up to
// maxTailBytes. Its memory grows with the lines that it keeps, and is used again.
type tail struct {
	mu      sync.Mutex
	entries []entry // a ring of maxTailLines; nil before the first line
	first   int     // index of the oldest
	count   int
	data    []byte // a ring with the texts
	begin   int    // index of the oldest byte
	used    int
	name    string
	slot    int
}

// An entry is a line whose text is in tail.data.
type entry struct {
	time      time.Time
	pid, size int
	stream    Stream
	continued bool
}

// add adds a line, and drops the oldest ones if there is no place for it.
func (t *tail) add(e entry, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		t.entries = make([]entry, maxTailLines)
	}
	for t.count == maxTailLines || t.used+len(text) > maxTailBytes {
		size := t.entries[t.first].size
		t.first = (t.first + 1) % maxTailLines
		t.count--
		t.used -= size
		if len(t.data) > 0 {
			t.begin = (t.begin + size) % len(t.data)
		}
	}
	if need := t.used + len(text); need > len(t.data) {
		size := max(len(t.data), minTailBytes)
		for size < need {
			size *= 2
		}
		grown := make([]byte, size)
		t.copyOut(grown[:t.used], t.begin)
		t.data, t.begin = grown, 0
	}
	if len(text) > 0 {
		at := (t.begin + t.used) % len(t.data)
		copy(t.data, text[copy(t.data[at:], text):])
	}
	e.size = len(text)
	t.entries[(t.first+t.count)%maxTailLines] = e
	t.count++
	t.used += len(text)
}

// copyOut copies bytes of the ring from an index on.
func (t *tail) copyOut(to []byte, at int) {
	copy(to[copy(to, t.data[at:]):], t.data)
}

// last returns up to n of the last lines, or of those of a process if pid is not
// zero.
func (t *tail) last(n, pid int) []Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []Line
	skip := -n
	for i := range t.count {
		if e := &t.entries[(t.first+i)%maxTailLines]; pid == 0 || e.pid == pid {
			skip++
		}
	}
	at := t.begin
	for i := range t.count {
		e := &t.entries[(t.first+i)%maxTailLines]
		if pid == 0 || e.pid == pid {
			if skip--; skip < 0 {
				text := make([]byte, e.size)
				t.copyOut(text, at)
				lines = append(lines, Line{e.time, t.name, t.slot, e.pid, e.stream, string(text), e.continued})
			}
		}
		if len(t.data) > 0 {
			at = (at + e.size) % len(t.data)
		}
	}
	return lines
}
