//go:build unix

package journal

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/internal/recordtest"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "run the number of repetitions that the documents state, not a tenth")

var programs = map[string]func(){"writer": writerProgram}

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // a journal refuses a directory that a group can write to
	preforktest.Main(m, programs)
}

// report prints a line for the test to expect.
func report(format string, args ...any) { fmt.Printf(format+"\n", args...) }

var moment = recordtest.Moment

// openJournal opens a journal, which is closed at the end of the test.
func openJournal(t *testing.T, path string, cfg Config) *Journal {
	t.Helper()
	j, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func warning(component, text string) Warning { return Warning{Component: component, Error: text} }

func writeEvents(t *testing.T, sink Sink, events ...fmt.Stringer) {
	t.Helper()
	for _, e := range events {
		if err := sink.Write(Record{Time: time.Now(), Event: e}); err != nil {
			t.Fatalf("%v: %v", e, err)
		}
	}
}

// rotatedFiles returns the names of the rotated files of a journal, oldest first.
func rotatedFiles(path string) (names []string, err error) {
	d, err := openFolderToRead(path)
	if err != nil {
		return nil, err
	}
	defer d.close()
	files, err := d.rotatedFiles()
	for _, f := range files {
		names = append(names, filepath.Join(filepath.Dir(path), f.name))
	}
	return names, err
}

// journalFiles returns the names of all files of a journal, oldest first.
func journalFiles(path string) ([]string, error) {
	names, err := rotatedFiles(path)
	if _, missing := os.Stat(path); missing == nil {
		names = append(names, path)
	}
	return names, err
}

// readAll reads a journal in both directions, which must agree. It returns the
// texts of the records and the number of damaged lines.
func readAll(t *testing.T, path string) (texts []string, bad int) {
	t.Helper()
	texts, bad = readRecords(t, Read(path))
	backward, backwardBad := readRecords(t, ReadBackward(path))
	slices.Reverse(backward)
	if !slices.Equal(texts, backward) || bad != backwardBad {
		t.Fatalf("forward  %d damaged lines, %q\nbackward %d damaged lines, %q", bad, texts, backwardBad, backward)
	}
	return texts, bad
}

func readRecords(t *testing.T, records iter.Seq2[Record, error]) (texts []string, bad int) {
	t.Helper()
	for rec, err := range records {
		var line *LineError
		switch {
		case errors.As(err, &line):
			bad++
		case err != nil:
			t.Fatal(err)
		default:
			texts = append(texts, rec.Event.String())
		}
	}
	return texts, bad
}
