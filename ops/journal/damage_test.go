//go:build unix

package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
)

// A file that another process truncates gets the state before the next record
// (37).
func TestTruncated(t *testing.T) {
	for _, keep := range []int64{0, 1, -10} {
		path := filepath.Join(t.TempDir(), "test.journal")
		j := openJournal(t, path, Config{MaxSize: 5000})
		worker := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateReady}}
		writeEvents(t, j, worker)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		size := keep
		if keep < 0 {
			size += int64(len(before))
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		writeEvents(t, j, warning("n", "0"), warning("n", "1"))
		texts, bad := readAll(t, path)
		n := len(texts)
		if n < 3 || !strings.Contains(texts[n-3], "truncated") || countInOrder(texts) != 2 || bad != min(1, int(size)) {
			t.Errorf("truncated to %d: %q, %d damaged lines", size, texts, bad)
		}
		if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != 1 {
			t.Errorf("PreviousState: %v, %v", s, err)
		}
		// No hole: the file is open for appending.
		if content, _ := os.ReadFile(path); bytes.IndexByte(content, 0) >= 0 {
			t.Errorf("%q", content)
		}
		if info, _ := os.Stat(path); j.size != info.Size() {
			t.Errorf("size %d, want %d", j.size, info.Size())
		}
		j.Close()
	}
}

// A file that another process has written to is continued on a new line.
func TestAppendedByOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("half a line")
	f.Close()
	writeEvents(t, j, warning("n", "0"))
	if texts, bad := readAll(t, path); countInOrder(texts) != 1 || bad != 1 {
		t.Errorf("%q, %d damaged lines", texts, bad)
	}
}

// Open writes the state again if there are damaged lines after it (37).
func TestDamaged(t *testing.T) {
	worker := func(pid int) prefork.StateEvent {
		return prefork.StateEvent{Worker: prefork.WorkerInfo{PID: pid, Ordinal: pid, State: prefork.StateReady}}
	}
	for name, c := range map[string]struct {
		damage func(content []byte) []byte
		want   string // after "started"
	}{
		"line":      {func(b []byte) []byte { return append(b, "garbage\n"...) }, "damaged lines"},
		"zeros":     {func(b []byte) []byte { return append(b, "\x00\x00\x00\n"...) }, "damaged lines"},
		"all":       {func(b []byte) []byte { return []byte("x\ny\n") }, "damaged lines"},
		"cut":       {func(b []byte) []byte { return b[:len(b)-4] }, ""},
		"none":      {func(b []byte) []byte { return b }, ""},
		"truncated": {func(b []byte) []byte { return nil }, ""},
	} {
		path := filepath.Join(t.TempDir(), "test.journal")
		j := openJournal(t, path, Config{})
		writeEvents(t, j, worker(1), worker(2))
		j.Close()
		content, _ := os.ReadFile(path)
		os.WriteFile(path, c.damage(content), 0o600)
		j = openJournal(t, path, Config{})
		s := j.Previous()
		texts, _ := readAll(t, path)
		n := len(texts)
		if texts[n-1] != (Started{PID: os.Getpid()}).String() {
			t.Errorf("%s: %q", name, texts)
		}
		if damaged := n > 1 && strings.Contains(texts[n-2], "damaged lines"); damaged != (c.want != "") {
			t.Errorf("%s: %q", name, texts)
		}
		j.Close()
		if again, err := PreviousState(path); c.want != "" && name != "all" && (err != nil || again.PID != s.PID || len(again.Workers) != len(s.Workers)) {
			t.Errorf("%s: %v, %v, want %v", name, again, err, s)
		}
		// Once is enough.
		openJournal(t, path, Config{}).Close()
		texts, _ = readAll(t, path)
		if got := strings.Count(strings.Join(texts, "|"), "damaged lines"); got > 1 {
			t.Errorf("%s: %q", name, texts)
		}
	}
}
