//go:build unix

package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

// Rotation by size loses no record, and PreviousState needs the last file only.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: 1000, KeepFiles: -1})
	worker := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateStarting, Started: moment}}
	writeEvents(t, j, worker)
	for i := range 100 {
		writeEvents(t, j, warning("n", strconv.Itoa(i)))
	}
	names, err := journalFiles(path)
	if err != nil || len(names) < 8 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 1000 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info)
		}
	}
	texts, bad := readAll(t, path)
	if n := countInOrder(texts); n != 100 || bad != 0 {
		t.Errorf("%d of 100 records, %d damaged lines", n, bad)
	}
	for _, name := range names[:len(names)-1] {
		os.Remove(name)
	}
	s, err := PreviousState(path)
	if err != nil || s.PID != os.Getpid() || len(s.Workers) != 1 || s.Workers[0].WorkerInfo != worker.Worker {
		t.Errorf("PreviousState of the last file: %v, %v", s, err)
	}
	// A writer that died between the rename and the new file.
	j.Close()
	os.Rename(path, strings.TrimSuffix(path, ".journal")+"-2026-11-25T07-00-00.000000000-size.journal")
	if s, err := PreviousState(path); err != nil || s.Ended.IsZero() {
		t.Errorf("PreviousState without the last file: %v, %v", s, err)
	}
	openJournal(t, path, Config{}).Close()
}

// countInOrder returns how many of the warnings "n: 0", "n: 1" … are among the
// texts in this order.
func countInOrder(texts []string) (n int) {
	for _, text := range texts {
		if text == "n: "+strconv.Itoa(n) {
			n++
		}
	}
	return n
}

// A rotation preserves more workers than fit in one line.
func TestRotationOfManyWorkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: -1})
	const n = 7000
	for i := range n {
		j.state.apply(Record{Event: prefork.StateEvent{Worker: prefork.WorkerInfo{
			Slot: i, Generation: 1e6, Ordinal: i + 1, PID: i + 10,
			State: prefork.StateStarting, Started: moment, Status: 0xe9, Requests: 1e18,
		}}})
	}
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	writeEvents(t, j, prefork.ExitEvent{Exit: prefork.Exit{PID: 10}})
	names, _ := journalFiles(path)
	for _, name := range names[:len(names)-1] {
		os.Remove(name)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != n-1 || s.Workers[n-2].PID != n+9 {
		t.Errorf("%v, %v", s, err)
	}
	if texts, bad := readAll(t, path); bad != 0 || len(texts) < 3 {
		t.Errorf("%d records, %d damaged lines", len(texts), bad)
	}
}

// A new file has the mode of the previous one, whatever the umask.
func TestRotationKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{KeepFiles: -1})
	os.Chmod(path, 0o640)
	writeEvents(t, j, warning("n", "0"))
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	check()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	os.Rename(path, path+".1")
	writeEvents(t, j, warning("n", "1"))
	check()
}

// The file is rotated by age, and KeepFiles bounds the number of rotated files.
func TestRotationByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxAge: time.Hour, KeepFiles: 2})
	for i := range 6 {
		writeEvents(t, j, warning("n", strconv.Itoa(i)))
		j.oldest = j.oldest.Add(-40 * time.Minute) // 40 minutes pass
	}
	names, _ := journalFiles(path)
	if len(names) != 3 || !strings.HasSuffix(names[0], "-age.journal") {
		t.Errorf("files: %q", names)
	}
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	j.Close()
	names, _ = journalFiles(path)
	texts, bad := readAll(t, path)
	if len(names) != 3 || bad != 0 || !strings.Contains(strings.Join(texts, "|"), "n: 5|") {
		t.Errorf("files %q: %q", names, texts)
	}
	// The age counts from the first record, also for a later writer.
	j = openJournal(t, path, Config{MaxAge: time.Hour})
	content, _ := os.ReadFile(path)
	for rec, err := range Decode(bytes.NewReader(content)) {
		if err != nil || !j.oldest.Equal(rec.Time) {
			t.Errorf("oldest %v; first record %v, %v", j.oldest, rec, err)
		}
		break
	}
	j.oldest = j.oldest.Add(-2 * time.Hour)
	writeEvents(t, j, Warning{})
	if again, _ := journalFiles(path); len(again) != len(names)+1 {
		t.Errorf("files: %q", again)
	}
}

// A manager that is not active does not rotate.
func TestSharedDoesNotRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: 1, KeepFiles: -1})
	setShared(j, true)
	writeEvents(t, j, warning("n", "0"), warning("n", "1"))
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	if names, _ := journalFiles(path); len(names) != 1 {
		t.Errorf("files: %q", names)
	}
	setShared(j, false)
	writeEvents(t, j, warning("n", "2"))
	if names, _ := journalFiles(path); len(names) != 2 {
		t.Errorf("files: %q", names)
	}
}

// The defaults are those that Config documents.
func TestDefaults(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "test.journal"), Config{})
	if j.cfg.MaxSize != 10<<20 || j.cfg.KeepFiles != 10 || j.cfg.MaxAge != 0 || j.cfg.KeepDays != 0 {
		t.Errorf("%+v", j.cfg)
	}
}

// KeepDays deletes rotated files by the time in their name.
func TestKeepDays(t *testing.T) {
	for _, days := range []int{0, 1} {
		path := filepath.Join(t.TempDir(), "test.journal")
		old := strings.TrimSuffix(path, ".journal") + "-2020-01-01T00-00-00.000000000-size.journal"
		os.WriteFile(old, nil, 0o600)
		j := openJournal(t, path, Config{KeepFiles: -1, KeepDays: days})
		if err := j.Rotate(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(old); (err == nil) != (days == 0) {
			t.Errorf("KeepDays %d: %v", days, err)
		}
	}
}

// Rotation by age depends on the clock, not on the times of the records.
func TestRotationByAgeOfClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxAge: time.Hour})
	for i := range 3 {
		if err := j.Write(Record{Time: time.Now().Add(time.Duration(i+2) * time.Hour), Event: warning("n", strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := journalFiles(path); len(names) != 1 {
		t.Errorf("files: %q", names)
	}
}

// If the file cannot be rotated, it grows, Write returns an error, and no
// record is lost.
func TestRotationFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	os.Mkdir(dir, 0o700)
	path := filepath.Join(dir, "test.journal")
	j := openJournal(t, path, Config{MaxSize: 500, KeepFiles: -1})
	os.Rename(dir, dir+".moved")
	os.WriteFile(dir, nil, 0o600) // prevents that the directory is created again
	for i := range 10 {
		err := j.Write(Record{Time: time.Now(), Event: warning("n", strconv.Itoa(i))})
		if err == nil || !strings.Contains(err.Error(), "records go to the previous file") {
			t.Errorf("write %d: %v", i, err)
		}
	}
	os.Remove(dir)
	os.Rename(dir+".moved", dir)
	writeEvents(t, j, warning("n", "10"))
	texts, bad := readAll(t, path)
	for i := range 11 {
		if !slices.Contains(texts, "n: "+strconv.Itoa(i)) || bad != 0 {
			t.Errorf("record %d is missing: %q", i, texts)
		}
	}
	if names, _ := journalFiles(path); len(names) < 2 {
		t.Errorf("not rotated after the directory was restored: %q", names)
	}
}

// A journal that was moved or removed is created again and starts with the
// state.
func TestMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	writeEvents(t, j, warning("n", "0"))
	os.Rename(path, path+".1")
	writeEvents(t, j, warning("n", "1"))
	os.Remove(path)
	writeEvents(t, j, warning("n", "2"))
	if texts, _ := readAll(t, path+".1"); len(texts) != 2 {
		t.Errorf("the moved file: %q", texts)
	}
	if texts, bad := readAll(t, path); len(texts) != 2 || texts[1] != "n: 2" || bad != 0 {
		t.Errorf("%q", texts)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

// A file that another program has put in place gets the state after its own
// records.
func TestReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	os.Rename(path, path+".1")
	var other bytes.Buffer
	writeEvents(t, NewJSONSink("", &other), warning("n", "0"))
	os.WriteFile(path, other.Bytes(), 0o600)
	writeEvents(t, j, warning("n", "1"))
	if texts, bad := readAll(t, path); len(texts) != 3 || texts[0] != "n: 0" || texts[2] != "n: 1" || bad != 0 {
		t.Errorf("%q", texts)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

// A rotation during Read loses no record that was written before, and
// duplicates none.
func TestRotationWhileReading(t *testing.T) {
	t.Run("current file", func(t *testing.T) { testRotationWhileReading(t, false) })
	// A writer that died in a rotation leaves no file at the path.
	t.Run("no current file", func(t *testing.T) { testRotationWhileReading(t, true) })
}

func testRotationWhileReading(t *testing.T, removeCurrent bool) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: -1, KeepFiles: -1})
	rotate := func() {
		t.Helper()
		if err := j.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	writeEvents(t, j, warning("n", "0"), warning("n", "1"))
	rotate()
	writeEvents(t, j, warning("n", "2"), warning("n", "3"))
	if removeCurrent {
		rotate()
		os.Remove(path)
	}
	var got []string
	first := true
	for rec, err := range Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; first && i < 3; i++ {
			rotate()
			writeEvents(t, j, warning("later", strconv.Itoa(i)))
		}
		first = false
		if w, ok := rec.Event.(Warning); ok && w.Component == "n" {
			got = append(got, w.String())
		}
	}
	if want := []string{"n: 0", "n: 1", "n: 2", "n: 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The same for a rotation after Read has opened the current file and before it
// lists the rotated ones.
func TestRotationWhileOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: -1, KeepFiles: -1})
	writeEvents(t, j, warning("n", "0"))
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	before, err := rotatedFiles(path)
	if err != nil || len(before) != 1 {
		t.Fatalf("%q, %v", before, err)
	}
	dir, err := openFolderToRead(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	for range 3 {
		f, err := newFiles(dir, func() (*os.File, error) {
			last, err := os.Open(path)
			if err := j.Rotate(); err != nil {
				t.Error(err)
			}
			return last, err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer f.current.Close()
		var got []string
		for _, r := range f.older {
			got = append(got, filepath.Join(filepath.Dir(path), r.name))
		}
		if !slices.Equal(got, before) {
			t.Errorf("%q, want %q", got, before)
		}
		before, _ = rotatedFiles(path)
	}
}
