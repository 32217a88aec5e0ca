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

// Rotation by size: nothing is lost while files are kept, and PreviousState needs no more than the last file.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{MaxSize: 1000, Keep: -1})
	worker := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateStarting, Started: moment}}
	write(t, j, worker)
	for i := range 100 {
		write(t, j, Warning{"n", strconv.Itoa(i)})
	}
	files, err := files(path)
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Size() > 1000 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info)
		}
	}
	texts, bad := all(t, path)
	n := 0
	for _, text := range texts {
		if text == "n: "+strconv.Itoa(n) {
			n++
		}
	}
	if n != 100 || bad != 0 {
		t.Errorf("%d of 100 are read, %d bad lines", n, bad)
	}
	for _, name := range files[:len(files)-1] {
		os.Remove(name)
	}
	s, err := PreviousState(path)
	if err != nil || s.PID != os.Getpid() || len(s.Workers) != 1 || s.Workers[0] != worker.Worker {
		t.Errorf("PreviousState of the last file: %v, %v", s, err)
	}
	// A writer that died between moving the file aside and making a new one.
	j.Close()
	os.Rename(path, strings.TrimSuffix(path, ".journal")+"-2026-11-25T07-00-00.000000000-size.journal")
	if s, err := PreviousState(path); err != nil || s.Ended.IsZero() {
		t.Errorf("PreviousState without the last file: %v, %v", s, err)
	}
	open(t, path, Config{}).Close()
}

// More workers than a line has room for are there behind a rotation too.
func TestRotationOfManyWorkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{MaxSize: -1})
	const n = 7000
	for i := range n {
		j.state.apply(Record{Event: prefork.StateEvent{Worker: prefork.WorkerInfo{
			Slot: i, Generation: 1e6, Ordinal: i + 1, PID: i + 10, State: prefork.StateStarting, Started: moment, Status: 0xe9, Requests: 1e18,
		}}})
	}
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	write(t, j, prefork.ExitEvent{Exit: prefork.Exit{PID: 10}})
	names, _ := files(path)
	for _, name := range names[:len(names)-1] {
		os.Remove(name)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != n-1 || s.Workers[n-2].PID != n+9 {
		t.Errorf("%v, %v", s, err)
	}
	if texts, bad := all(t, path); bad != 0 || len(texts) < 3 {
		t.Errorf("%d records, %d bad lines", len(texts), bad)
	}
}

// The file keeps the mode that it was given.
func TestRotationKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{Keep: -1})
	os.Chmod(path, 0o640)
	write(t, j, Warning{"n", "0"})
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
	write(t, j, Warning{"n", "1"})
	check()
}

// Rotation by age, and how many files are kept.
func TestRotationByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{MaxAge: time.Hour, Keep: 2})
	for i := range 6 {
		write(t, j, Warning{"n", strconv.Itoa(i)})
		j.began = j.began.Add(-40 * time.Minute) // so much time passes
	}
	names, _ := files(path)
	if len(names) != 3 || !strings.HasSuffix(names[0], "-age.journal") {
		t.Errorf("files: %q", names)
	}
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	j.Close()
	names, _ = files(path)
	texts, bad := all(t, path)
	if len(names) != 3 || bad != 0 || !strings.Contains(strings.Join(texts, "|"), "n: 5|") {
		t.Errorf("files %q: %q", names, texts)
	}
	// The age counts from the first record, also for a writer that comes later.
	j = open(t, path, Config{MaxAge: time.Hour})
	content, _ := os.ReadFile(path)
	for rec, err := range Decode(bytes.NewReader(content)) {
		if err != nil || !j.began.Equal(rec.Time) {
			t.Errorf("it began %v; first record %v, %v", j.began, rec, err)
		}
		break
	}
	j.began = j.began.Add(-2 * time.Hour)
	write(t, j, Warning{})
	if again, _ := files(path); len(again) != len(names)+1 {
		t.Errorf("files: %q", again)
	}
}

// Files are kept by the clock: what time a record is said to be of rotates none.
func TestRotationByAgeOfClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{MaxAge: time.Hour})
	for i := range 3 {
		if err := j.Write(Record{Time: time.Now().Add(time.Duration(i+2) * time.Hour), Event: Warning{"n", strconv.Itoa(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := files(path); len(names) != 1 {
		t.Errorf("files: %q", names)
	}
}

// Where it cannot be rotated, it grows, says so, and loses nothing.
func TestRotationFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	os.Mkdir(dir, 0o700)
	path := filepath.Join(dir, "test.journal")
	j := open(t, path, Config{MaxSize: 500, Keep: -1})
	os.Rename(dir, dir+".moved")
	os.WriteFile(dir, nil, 0o600) // so it cannot be made anew either
	for i := range 10 {
		err := j.Write(Record{Time: time.Now(), Event: Warning{"n", strconv.Itoa(i)}})
		if err == nil || !strings.Contains(err.Error(), "it goes on in the file before") {
			t.Errorf("write %d: %v", i, err)
		}
	}
	os.Remove(dir)
	os.Rename(dir+".moved", dir)
	write(t, j, Warning{"n", "10"})
	texts, bad := all(t, path)
	for i := range 11 {
		if !slices.Contains(texts, "n: "+strconv.Itoa(i)) || bad != 0 {
			t.Errorf("record %d is missing: %q", i, texts)
		}
	}
	if names, _ := files(path); len(names) < 2 {
		t.Errorf("it was not rotated when it could be: %q", names)
	}
}

// A journal that somebody moves or removes is made anew, and says how things stand.
func TestMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	write(t, j, Warning{"n", "0"})
	os.Rename(path, path+".1")
	write(t, j, Warning{"n", "1"})
	os.Remove(path)
	write(t, j, Warning{"n", "2"})
	if texts, _ := all(t, path+".1"); len(texts) != 2 {
		t.Errorf("what was moved: %q", texts)
	}
	if texts, bad := all(t, path); len(texts) != 2 || texts[1] != "n: 2" || bad != 0 {
		t.Errorf("%q", texts)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

// A file that somebody else has put in its place, with something in it, tells how things stand too.
func TestReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	os.Rename(path, path+".1")
	var other bytes.Buffer
	write(t, NewWriter("", &other), Warning{"n", "0"})
	os.WriteFile(path, other.Bytes(), 0o600)
	write(t, j, Warning{"n", "1"})
	if texts, bad := all(t, path); len(texts) != 3 || texts[0] != "n: 0" || texts[2] != "n: 1" || bad != 0 {
		t.Errorf("%q", texts)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

// What is rotated while it is read is not missed: each record that was there comes once, in order.
func TestRotationWhileReading(t *testing.T) {
	for _, begun := range []bool{true, false} { // a writer that died in a rotation has left no file at the path
		path := filepath.Join(t.TempDir(), "test.journal")
		j := open(t, path, Config{MaxSize: -1, Keep: -1})
		rotate := func() {
			t.Helper()
			if err := j.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		write(t, j, Warning{"n", "0"}, Warning{"n", "1"})
		rotate()
		write(t, j, Warning{"n", "2"}, Warning{"n", "3"})
		if !begun {
			rotate()
			os.Remove(path)
		}
		var want, got []string
		for i := range 4 {
			want = append(want, "n: "+strconv.Itoa(i))
		}
		first := true
		for rec, err := range Read(path) {
			if err != nil {
				t.Fatal(err)
			}
			if first {
				first = false
				for i := range 3 {
					rotate()
					write(t, j, Warning{"later", strconv.Itoa(i)})
				}
			}
			if w, ok := rec.Event.(Warning); ok && w.Component == "n" {
				got = append(got, w.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("begun %t: %q, want %q", begun, got, want)
		}
	}
}

// The same between the moments at which a reader opens the file and finds the rotated ones.
func TestRotationWhileOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{MaxSize: -1, Keep: -1})
	write(t, j, Warning{"n", "0"})
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	before, err := rotated(path)
	if err != nil || len(before) != 1 {
		t.Fatalf("%q, %v", before, err)
	}
	last, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	for range 3 {
		if err := j.Rotate(); err != nil {
			t.Fatal(err)
		}
		if got, err := rotatedBefore(last, path); err != nil || !slices.Equal(got, before) {
			t.Errorf("%q, %v, want %q", got, err, before)
		}
	}
}
