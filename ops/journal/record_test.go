//go:build unix

package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prefork-go/prefork/ops/internal/recordtest"
	"github.com/prefork-go/prefork/ops/record"
)

// A journal and a Sink write the lines of package record, byte for byte, and read
// what was written, for every type of event.
func TestLinesOfPackageRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	var sink, want bytes.Buffer
	m := MultiSink(openJournal(t, path, Config{}), NewJSONSink("", &sink))
	var events []string
	for _, event := range recordtest.Examples(t) {
		rec := record.Record{Time: recordtest.Moment, Event: event, PID: os.Getpid()}
		if err := m.Write(rec); err != nil {
			t.Errorf("%T: %v", event, err)
		}
		line, err := rec.Line()
		if err != nil {
			t.Errorf("%T: %v", event, err)
		}
		want.Write(line)
		events = append(events, event.String())
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, file, _ = bytes.Cut(file, []byte("\n")) // the Started of Open
	for of, got := range map[string][]byte{"journal": file, "sink": sink.Bytes()} {
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("the %s has\n%s\nwant\n%s", of, got, want.Bytes())
		}
	}
	if texts, bad := readAll(t, path); bad != 0 || !slices.Equal(texts[1:], events) {
		t.Errorf("%d damaged lines, read %q\nwant %q", bad, texts, events)
	}
}
