//go:build unix

package journal

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/internal/recordtest"
	"github.com/prefork-go/prefork/ops/record"
)

// FuzzJournal decodes arbitrary files. Both directions must return the same, a
// damaged line must not affect other lines, and each record must survive
// another round of encoding and decoding.
func FuzzJournal(f *testing.F) {
	var whole bytes.Buffer
	w := NewJSONSink("", &whole)
	for _, e := range recordtest.Examples(f) {
		w.Write(Record{Time: moment, Event: e})
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-7])
	f.Add([]byte(`{"time":"2026-11-25T07:00:00Z","pid":7,"type":"took-over","data":{"pid":7,"workers":[{"pid":9}]}}` + "\n"))
	f.Add([]byte("\n\n{}\nnull\n{\"time\":\"2026-11-25T07:00:00Z\",\"type\":\"x\"}\n\x00\xff"))
	f.Add([]byte(`{"time":"2026-11-25T07:00:00Z","type":"rotated","data":{"workers":[{"status":"é"},{}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		forward := describe(Decode(bytes.NewReader(data)))
		backward := describe(DecodeBackward(bytes.NewReader(data), int64(len(data))))
		slices.Reverse(backward)
		if !slices.Equal(forward, backward) {
			t.Fatalf("forward  %q\nbackward %q", forward, backward)
		}
		records := decodeAll(data)
		var tr tracker
		for _, rec := range records {
			tr.apply(rec)
			checkRoundTrip(t, rec)
		}
		_ = tr.state().String()
		// Records before and after the data are read, whatever the data.
		one, _ := Record{Time: time.Unix(1, 0), Event: Ended{PID: 1}}.Line()
		n := len(decodeAll(slices.Concat(one, data, []byte("\n"), one)))
		if n < len(records)+2 {
			t.Fatalf("%d records, and %d after adding two", len(records), n)
		}
	})
}

// checkRoundTrip encodes and decodes a record.
func checkRoundTrip(t *testing.T, rec Record) {
	t.Helper()
	line, err := rec.Line()
	if err != nil {
		return // too long, because the encoder escapes more characters
	}
	again, err := record.Parse(line)
	if err != nil || again.Event.String() != rec.Event.String() || !again.Time.Equal(rec.Time) || again.PID != rec.PID {
		t.Fatalf("%v is written as %s and read as %v, %v", rec, line, again, err)
	}
}

func decodeAll(data []byte) (records []Record) {
	for rec, err := range Decode(bytes.NewReader(data)) {
		if err == nil {
			records = append(records, rec)
		}
	}
	return records
}

func describe(records iter.Seq2[Record, error]) (texts []string) {
	for rec, err := range records {
		texts = append(texts, fmt.Sprint(rec.Event, err))
	}
	return texts
}
