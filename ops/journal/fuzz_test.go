//go:build unix

package journal

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"
)

// FuzzJournal: whatever a file has in it, the reader does not fail, both directions give the same, a line that is torn costs
// nothing but itself, and what was read can be written and read again.
func FuzzJournal(f *testing.F) {
	var whole bytes.Buffer
	w := NewWriter("", &whole)
	for _, e := range examples() {
		w.Write(Record{Time: moment, Event: e})
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-7])
	f.Add([]byte(`{"time":"2026-11-25T07:00:00Z","pid":7,"type":"took-over","data":{"pid":7,"workers":[{"pid":9}]}}` + "\n"))
	f.Add([]byte("\n\n{}\nnull\n{\"time\":\"2026-11-25T07:00:00Z\",\"type\":\"x\"}\n\x00\xff"))
	f.Add([]byte(`{"time":"2026-11-25T07:00:00Z","type":"rotated","data":{"workers":[{"status":"é"},{}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		forward := gather(Decode(bytes.NewReader(data)))
		backward := gather(DecodeBackward(bytes.NewReader(data), int64(len(data))))
		slices.Reverse(backward)
		if !slices.Equal(forward, backward) {
			t.Fatalf("forward  %q\nbackward %q", forward, backward)
		}
		var tr tracker
		good := 0
		for rec, err := range Decode(bytes.NewReader(data)) {
			if err != nil {
				continue
			}
			good++
			tr.apply(rec)
			line, err := rec.line()
			if err != nil {
				continue // it is longer than what was read, which may have had escapes that are not needed
			}
			again, err := parse(line)
			if err != nil || again.Event.String() != rec.Event.String() || !again.Time.Equal(rec.Time) || again.PID != rec.PID {
				t.Fatalf("%v is written as %s and read as %v, %v", rec, line, again, err)
			}
		}
		_ = tr.state().String()
		// A line in front and one behind are read, whatever is between them.
		one, _ := Record{Time: time.Unix(1, 0), Event: Ended{1}}.line()
		around := slices.Concat(one, data, []byte("\n"), one)
		n := 0
		for _, err := range Decode(bytes.NewReader(around)) {
			if err == nil {
				n++
			}
		}
		if n < good+2 {
			t.Fatalf("%d records and two more are %d", good, n)
		}
	})
}

func gather(records iter.Seq2[Record, error]) (all []string) {
	for rec, err := range records {
		all = append(all, fmt.Sprint(rec.Event, err))
	}
	return all
}
