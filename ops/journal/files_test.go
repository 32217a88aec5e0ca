//go:build unix

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/record"
)

// setClock sets the clock of all journals to a function of the real time.
func setClock(t *testing.T, f func() time.Time) {
	t.Helper()
	clock = f
	t.Cleanup(func() { clock = time.Now })
}

// A relative path means the directory of the time of Open (26).
func TestRelativePath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	j := openJournal(t, "test.journal", Config{MaxSize: 300, KeepFiles: -1})
	if want := "file:" + filepath.Join(dir, "test.journal"); j.ID() != want {
		t.Errorf("ID %s, want %s", j.ID(), want)
	}
	other := t.TempDir()
	t.Chdir(other)
	for i := range 10 {
		writeEvents(t, j, warning("n", strconv.Itoa(i)))
	}
	if err := errors.Join(j.Rotate(), j.Close()); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(other); len(left) > 0 {
		t.Errorf("in the later directory: %v", left)
	}
	t.Chdir(dir)
	if texts, bad := readAll(t, "test.journal"); countInOrder(texts) != 10 || bad != 0 {
		t.Errorf("%q, %d damaged lines", texts, bad)
	}
	if _, err := os.Stat("test.journal.lock"); err == nil {
		t.Error("the lock file still exists")
	}
}

// If the path of the directory leads elsewhere, the next record goes there, after
// the state (27).
func TestDirectoryMoved(t *testing.T) {
	for name, move := range map[string]func(dir string) error{
		"renamed and made": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755))
		},
		"link switched": func(dir string) error {
			return errors.Join(os.Mkdir(dir+".new", 0o755), os.Remove(filepath.Dir(dir)+"/link"),
				os.Symlink(dir+".new", filepath.Dir(dir)+"/link"))
		},
		"parent renamed": func(dir string) error {
			parent := filepath.Dir(dir)
			return errors.Join(os.Rename(parent, parent+".old"), os.MkdirAll(dir, 0o755), os.Symlink(dir, parent+"/link"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "p")
			dir := filepath.Join(parent, "d")
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(dir, parent+"/link")); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(parent, "link", "test.journal")
			if name == "renamed and made" {
				path = filepath.Join(dir, "test.journal")
			}
			j := openJournal(t, path, Config{KeepFiles: -1})
			worker := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateReady}}
			writeEvents(t, j, worker)
			if err := move(dir); err != nil {
				t.Fatal(err)
			}
			writeEvents(t, j, warning("n", "0"))
			if texts, bad := readAll(t, path); len(texts) != 2 || texts[1] != "n: 0" || bad != 0 {
				t.Errorf("%q", texts)
			}
			if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != 1 {
				t.Errorf("PreviousState: %v, %v", s, err)
			}
			var locked *LockedError
			if _, err := Open(path, Config{}); !errors.As(err, &locked) || locked.PID != os.Getpid() {
				t.Errorf("second Open: %v", err)
			}
			if err := j.Rotate(); err != nil {
				t.Error(err)
			}
			if names, _ := rotatedFiles(path); len(names) != 1 {
				t.Errorf("rotated: %q", names)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			locks, _ := filepath.Glob(filepath.Dir(parent) + "/*/*/*.lock")
			if len(locks) > 0 {
				t.Errorf("left: %q", locks)
			}
		})
	}
}

// The journal does not go on in a directory in which another process writes it,
// or which others can change. Records go to the previous file.
func TestDirectoryMovedToLocked(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"locked": func(t *testing.T, dir string) { openJournal(t, filepath.Join(dir, "test.journal"), Config{}) },
		"group":  func(t *testing.T, dir string) { os.Chmod(dir, 0o775) },
		"no more a directory": func(t *testing.T, dir string) {
			os.Remove(dir)
			os.WriteFile(dir, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			for _, d := range []string{"a", "b"} {
				os.Mkdir(filepath.Join(parent, d), 0o755)
			}
			os.Symlink("a", parent+"/link")
			path := parent + "/link/test.journal"
			j := openJournal(t, path, Config{})
			prepare(t, parent+"/b")
			os.Remove(parent + "/link")
			os.Symlink("b", parent+"/link")
			before, _ := os.ReadFile(parent + "/b/test.journal")
			for range 3 {
				if err := j.Write(Record{Event: warning("n", "1")}); err == nil || !strings.Contains(err.Error(), "records go to the previous file") {
					t.Errorf("%v", err)
				}
			}
			if texts, _ := readAll(t, parent+"/a/test.journal"); !slices.Equal(texts[1:], []string{"n: 1", "n: 1", "n: 1"}) {
				t.Errorf("%q", texts)
			}
			if after, _ := os.ReadFile(parent + "/b/test.journal"); !bytes.Equal(before, after) {
				t.Errorf("written to the other journal: %s", after)
			}
			os.Remove(parent + "/link")
			os.Symlink("a", parent+"/link")
			writeEvents(t, j, warning("n", "2"))
		})
	}
}

// Open refuses a directory that another user or a group can change (61).
func TestSharedDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.journal")
	for mode, want := range map[os.FileMode]string{
		0o777: "every user can create files", 0o777 | os.ModeSticky: "every user can create files",
		0o775: "can create files in directory", 0o720: "can create files in directory", 0o755: "", 0o700 | os.ModeSetgid: "",
	} {
		os.Chmod(dir, mode)
		j, err := Open(path, Config{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", mode, err)
		}
		if err == nil {
			j.Close()
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	os.Chmod(dir, 0o755)
	os.Chown(dir, 65534, 0)
	if _, err := Open(path, Config{}); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("a directory of another user: %v", err)
	}
}

// Links, FIFOs and directories under names of the journal are not followed, and
// neither mislead a reader nor retention (61).
func TestForeignFiles(t *testing.T) {
	for kind, create := range map[string]func(name, target string) error{
		"link":      func(name, target string) error { return os.Symlink(target, name) },
		"dangling":  func(name, target string) error { return os.Symlink(target+".missing", name) },
		"fifo":      func(name, _ string) error { return syscall.Mkfifo(name, 0o600) },
		"directory": func(name, _ string) error { return os.Mkdir(name, 0o755) },
	} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "target")
			os.WriteFile(target, []byte("precious\n"), 0o644)
			path := filepath.Join(dir, "test.journal")
			names := namesOf(path)
			create(filepath.Join(dir, names.rotatedName(moment, 3, record.ReasonSize)), target)
			create(filepath.Join(dir, names.rotatedName(moment.AddDate(90, 0, 0), 4, record.ReasonAge)), target)
			create(filepath.Join(dir, "test-2026-11-25T07-00-00.000000000-size.journal"), target)
			j := openJournal(t, path, Config{KeepFiles: 2, KeepDays: 1})
			for i := range 4 {
				writeEvents(t, j, warning("n", strconv.Itoa(i)))
				if err := j.Rotate(); err != nil {
					t.Error(err)
				}
			}
			texts, bad := readAll(t, path)
			if bad != 0 || !slices.Contains(texts, "n: 2") || !slices.Contains(texts, "n: 3") || slices.Contains(texts, "n: 1") {
				t.Errorf("%q, %d damaged lines", texts, bad)
			}
			j.Close()
			os.Remove(path)
			create(path, target)
			if _, err := Open(path, Config{}); err == nil {
				t.Error("opened")
			}
			for _, err := range Read(path) { // must not hang
				if err == nil && kind != "link" && kind != "dangling" {
					t.Error("read")
				}
				break
			}
			if content, _ := os.ReadFile(target); string(content) != "precious\n" {
				t.Errorf("the target of a link has changed: %q", content)
			}
			const targets, current, foreign, kept = 1, 1, 3, 2
			if entries, _ := os.ReadDir(dir); len(entries) != targets+current+foreign+kept {
				t.Errorf("%v", entries)
			}
			if _, err := os.Lstat(target + ".missing"); err == nil {
				t.Error("the target of a dangling link was created")
			}
		})
	}
}

// Something under the journal's own name while it is open is not followed, and no
// record is lost.
func TestForeignFileInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.journal")
	j := openJournal(t, path, Config{})
	for i, create := range []func() error{
		func() error { return os.Symlink(dir+"/target", path) },
		func() error { return syscall.Mkfifo(path, 0o600) },
		func() error { return os.Mkdir(path, 0o755) },
	} {
		os.Rename(path, path+".1")
		if err := create(); err != nil {
			t.Fatal(err)
		}
		if err := j.Write(Record{Event: warning("n", strconv.Itoa(i))}); err == nil || !strings.Contains(err.Error(), "records go to the previous file") {
			t.Errorf("%v", err)
		}
		os.Remove(path)
		os.Rename(path+".1", path)
		writeEvents(t, j, warning("m", strconv.Itoa(i)))
	}
	texts, bad := readAll(t, path)
	if want := []string{"n: 0", "m: 0", "n: 1", "m: 1", "n: 2", "m: 2"}; !slices.Equal(texts[1:], want) || bad != 0 {
		t.Errorf("%q", texts)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

// A reader may reach the current file by a link.
func TestReadByLink(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, filepath.Join(dir, "test.journal"), Config{})
	writeEvents(t, j, warning("n", "0"))
	link := filepath.Join(t.TempDir(), "link.journal")
	os.Symlink(filepath.Join(dir, "test.journal"), link)
	if texts, bad := readAll(t, link); len(texts) != 2 || bad != 0 {
		t.Errorf("%q", texts)
	}
}

// Rotated files with other names, as a backup by hard links has them, are read.
func TestHardLinkedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.journal")
	j := openJournal(t, path, Config{})
	writeEvents(t, j, warning("n", "0"))
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	names, _ := rotatedFiles(path)
	os.Link(names[0], dir+"/backup")
	if texts, bad := readAll(t, path); countInOrder(texts) != 1 || bad != 0 {
		t.Errorf("%q", texts)
	}
}

// A writer that died between the two steps of a rename, on a system that needs
// two, does not prevent the next Open.
func TestUnfinishedRename(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	writeEvents(t, j, warning("n", "0"))
	j.Close()
	os.Link(path, filepath.Join(filepath.Dir(path), namesOf(path).rotatedName(moment, 1, record.ReasonSize)))
	j = openJournal(t, path, Config{})
	writeEvents(t, j, warning("n", "1"))
	if texts, bad := readAll(t, path); countInOrder(texts) != 2 || bad != 0 || len(texts) != 5 {
		t.Errorf("%q", texts)
	}
	if j.Previous().Ended.IsZero() {
		t.Errorf("previous: %v", j.Previous())
	}
}

// After the clock was ahead, later files are not the first to be deleted, and
// Read returns the records in their order (35).
func TestClockWasAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	ahead := 365 * 24 * time.Hour
	setClock(t, func() time.Time { return time.Now().Add(ahead) })
	j := openJournal(t, path, Config{KeepFiles: 3, KeepDays: 30, MaxAge: 24 * time.Hour})
	rotate := func(i int) {
		t.Helper()
		if err := j.Write(Record{Event: warning("n", strconv.Itoa(i))}); err != nil {
			t.Error(err)
		}
		if err := j.Rotate(); err != nil {
			t.Error(err)
		}
	}
	for i := range 3 {
		rotate(i)
	}
	ahead = 0
	for i := range 3 {
		rotate(3 + i)
		var got []string
		texts, bad := readAll(t, path)
		for _, text := range texts {
			if strings.HasPrefix(text, "n: ") {
				got = append(got, text)
			}
		}
		var want []string
		for k := range 3 {
			want = append(want, fmt.Sprintf("n: %d", 1+i+k))
		}
		if !slices.Equal(got, want) || bad != 0 {
			t.Errorf("after %d: %q, want %q", i, got, want)
		}
	}
	// The age of a file counts from now on, if its first record is of the
	// future.
	ahead = -48 * time.Hour
	writeEvents(t, j, warning("n", "6"))
	ahead = -23 * time.Hour
	before, _ := rotatedFiles(path)
	writeEvents(t, j, warning("n", "7"))
	after, _ := rotatedFiles(path)
	if !strings.HasSuffix(after[len(after)-1], "-age.journal") || slices.Equal(before, after) {
		t.Errorf("not rotated by age: %q", after)
	}
}

// The order of the workers is that of their spawn, also if the clock went back.
func TestOrderOfWorkers(t *testing.T) {
	var tr tracker
	for i := range 3 {
		tr.apply(Record{Event: prefork.StateEvent{Worker: prefork.WorkerInfo{
			PID: 10 - i, Ordinal: i + 1, State: prefork.StateReady, Started: moment.Add(-time.Duration(i) * time.Hour),
		}}})
	}
	for i, w := range tr.state().Workers {
		if w.Ordinal != i+1 {
			t.Errorf("worker %d has ordinal %d", i, w.Ordinal)
		}
	}
}

// If the lock file is removed, the next Write restores it, and a second writer is
// refused all the time (36).
func TestLockFileRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	os.Remove(path + ".lock")
	if runtime.GOOS == "linux" {
		var locked *LockedError
		if _, err := Open(path, Config{}); !errors.As(err, &locked) {
			t.Errorf("Open without the lock file: %v", err)
		}
	}
	writeEvents(t, j, warning("n", "0"))
	if content, err := os.ReadFile(path + ".lock"); err != nil || string(content) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("%q, %v", content, err)
	}
	var locked *LockedError
	if _, err := Open(path, Config{}); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second Open: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	openJournal(t, path, Config{}).Close()
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
}

// A rotation that fails is logged once until it works again, and is not tried for
// each record (38).
func TestFailedRotationIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{MaxSize: 300, KeepFiles: -1})
	var log bytes.Buffer
	observe := Observer(j, slog.New(slog.NewTextHandler(&log, nil)))
	count := func() int { return strings.Count(log.String(), "cannot write the journal") }
	// The highest number prevents a rotation, for any user.
	highest := filepath.Join(filepath.Dir(path), namesOf(path).rotatedName(moment, 1<<63-1, record.ReasonSize))
	os.WriteFile(highest, nil, 0o600)
	for range 5 {
		for range 10 {
			observe(prefork.ResizeEvent{From: 1, To: 2})
		}
		j.rotating.next = time.Time{} // time passes
	}
	if count() != 1 {
		t.Errorf("logged %d times: %s", count(), log.String())
	}
	os.Remove(highest)
	j.rotating.next = time.Time{}
	observe(prefork.ResizeEvent{From: 1, To: 2})
	if names, _ := rotatedFiles(path); len(names) != 1 {
		t.Errorf("not rotated: %q", names)
	}
	os.WriteFile(highest, nil, 0o600)
	for range 10 {
		observe(prefork.ResizeEvent{From: 1, To: 2})
	}
	if count() != 2 {
		t.Errorf("logged %d times: %s", count(), log.String())
	}
	os.Remove(highest)
	if texts, bad := readAll(t, path); len(texts) < 61 || bad != 0 {
		t.Errorf("%d records, %d damaged lines", len(texts), bad)
	}
}

// An attempt that has failed is repeated only after a while.
func TestAttempt(t *testing.T) {
	var a attempt
	calls := 0
	fail := errors.New("fails")
	f := func() error { calls++; return fail }
	for range 3 {
		if err := a.try(f); err != fail {
			t.Error(err)
		}
	}
	a.next = time.Now()
	a.try(f)
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
	fail = nil
	a.next = time.Now()
	for range 3 {
		if err := a.try(f); err != nil {
			t.Error(err)
		}
	}
	if calls != 5 {
		t.Errorf("%d calls", calls)
	}
}

// The error of a rename is the same for each new name, so that it is logged once
// (38).
func TestRenameError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	os.Remove(path)
	a, b := j.folder.rename("a"), j.folder.rename("b")
	if a == nil || a.Error() != b.Error() || !errors.Is(a, unix.ENOENT) {
		t.Errorf("%v, %v", a, b)
	}
}
