//go:build unix

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	ossignal "os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// Open returns a LockedError with the pid if the journal is open already.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	var locked *LockedError
	if _, err := Open(path, Config{}); !errors.As(err, &locked) || locked.PID != os.Getpid() ||
		!strings.Contains(err.Error(), "locked by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second Open: %v", err)
	}
	from := time.Now()
	if _, err := Open(path, Config{LockTimeout: 50 * time.Millisecond}); !errors.As(err, &locked) || time.Since(from) < 50*time.Millisecond {
		t.Errorf("second Open with a timeout: %v after %v", err, time.Since(from))
	}
	time.AfterFunc(20*time.Millisecond, func() { j.Close() })
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Error(err)
	}
	second := openJournal(t, path, Config{LockTimeout: time.Minute})
	if err := errors.Join(second.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("the lock file still exists")
	}
	if err := second.Write(Record{Time: time.Now(), Event: Warning{}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// A failed Open leaves no lock file.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	shared := filepath.Join(dir, "shared")
	os.Mkdir(shared, 0o700)
	os.Chmod(shared, 0o777|os.ModeSticky)
	os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link"))
	syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)
	os.WriteFile(filepath.Join(dir, "loose"), nil, 0o600)
	os.Chmod(filepath.Join(dir, "loose"), 0o666)
	for name, want := range map[string]string{
		"none/x":   "no such file",
		"shared/x": "every user can create files",
		"link":     "symbolic link",
		"pipe":     "not a regular file",
		"loose":    "others could write",
	} {
		if _, err := Open(filepath.Join(dir, name), Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if _, err := os.Stat(filepath.Join(dir, name) + ".lock"); err == nil {
			t.Errorf("%s: the lock file still exists", name)
		}
	}
	if _, err := PreviousState(filepath.Join(dir, "none")); !errors.Is(err, ErrNoStart) {
		t.Errorf("PreviousState of no file: %v", err)
	}
}

// A partial last line does not affect other lines. The next writer ends it
// (C3).
func TestPartialLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	writeEvents(t, j, warning("a", "1"), warning("a", "2"))
	j.Close()
	whole, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	kept := bytes.Join(lines[:len(lines)-3], nil) // without "2" and Ended
	for cutAt := 1; cutAt < len(lines[len(lines)-3])-1; cutAt += 7 {
		if err := os.WriteFile(path, append(slices.Clone(kept), lines[len(lines)-3][:cutAt]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if texts, bad := readAll(t, path); len(texts) != 2 || bad != 1 {
			t.Errorf("cut at %d: %q, %d damaged lines", cutAt, texts, bad)
		}
		if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || !s.Ended.IsZero() {
			t.Errorf("cut at %d: %v, %v", cutAt, s, err)
		}
		j := openJournal(t, path, Config{})
		writeEvents(t, j, warning("b", "3"))
		j.Close()
		texts, bad := readAll(t, path)
		if len(texts) != 5 || bad != 1 || texts[3] != "b: 3" {
			t.Errorf("cut at %d and continued: %q, %d damaged lines", cutAt, texts, bad)
		}
	}
}

// All values of Config.Sync work together with rotation.
func TestSync(t *testing.T) {
	for _, sync := range []time.Duration{SyncAlways, time.Millisecond, time.Hour} {
		path := filepath.Join(t.TempDir(), "test.journal")
		j := openJournal(t, path, Config{Sync: sync, MaxSize: 300})
		for i := range 10 {
			writeEvents(t, j, warning("n", strconv.Itoa(i)))
		}
		if sync == time.Millisecond {
			preforktest.WaitFor(t, "the sync", func() bool {
				j.mu.Lock()
				defer j.mu.Unlock()
				return j.syncTimer == nil
			})
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

type failing struct{ err error }

func (f *failing) ID() string { return "failing" }

func (f *failing) Write(Record) error { return f.err }

// MultiSink writes to all sinks although one fails, and Observer logs a
// repeated error once.
func TestMultiSink(t *testing.T) {
	var lines, text, log bytes.Buffer
	bad := &failing{errors.New("disk full")}
	m := MultiSink(bad, NewJSONSink("a", &lines), NewTextSink("stderr", &text))
	if m.ID() != "failing+a+stderr" {
		t.Errorf("ID %q", m.ID())
	}
	observe := Observer(m, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		observe(prefork.ResizeEvent{From: 1, To: 2})
	}
	bad.err = nil
	observe(prefork.ResizeEvent{From: 2, To: 3})
	bad.err = errors.New("disk full")
	observe(prefork.ResizeEvent{From: 3, To: 4})
	if n := strings.Count(log.String(), "disk full"); n != 2 {
		t.Errorf("the error was logged %d times: %s", n, log.String())
	}
	if n := strings.Count(lines.String(), "\n"); n != 5 {
		t.Errorf("%d lines", n)
	}
	event := regexp.QuoteMeta(prefork.ResizeEvent{From: 1, To: 2}.String())
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ` + event + `\n`).MatchString(text.String()) {
		t.Errorf("text: %s", text.String())
	}
	for _, r := range []Record{{}, {Time: moment, Event: fmt.Stringer(time.Second)}} {
		if NewJSONSink("a", io.Discard).Write(r) == nil {
			t.Errorf("%v was written", r)
		}
	}
	if NewTextSink("a", io.Discard).Write(Record{}) == nil {
		t.Error("a record without an event was written")
	}
}

// Long error texts are truncated, so that their records can be read.
func TestLongErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	long := errors.New(strings.Repeat("x", 5<<20))
	writeEvents(t, j,
		prefork.ReloadFailedEvent{Err: long},
		prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Err: long}},
		warning("a", long.Error()))
	if texts, bad := readAll(t, path); len(texts) != 4 || bad != 0 {
		t.Errorf("%d records, %d damaged lines", len(texts), bad)
	}
}

// A record without a time gets the time of the Write, also as the first record
// of a file.
func TestZeroTime(t *testing.T) {
	from := time.Now()
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	for _, name := range []string{path + ".1", path + ".2"} {
		if err := j.Write(Record{Event: warning("n", "1")}); err != nil {
			t.Fatal(err)
		}
		os.Rename(path, name)
	}
	if err := j.Write(Record{Event: warning("n", "2")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path + ".1", path + ".2", path} {
		if texts, bad := readAll(t, name); len(texts) != 2 || bad != 0 {
			t.Errorf("%s: %q, %d damaged lines", name, texts, bad)
		}
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
	content, _ := os.ReadFile(path)
	checkTimes(t, bytes.NewReader(content), 2, from)
}

// Sinks set the time of a record without one, too.
func TestZeroTimeOfSinks(t *testing.T) {
	from := time.Now()
	var lines, text bytes.Buffer
	for _, sink := range []Sink{NewJSONSink("", &lines), NewTextSink("", &text)} {
		if err := sink.Write(Record{Event: warning("n", "3")}); err != nil {
			t.Error(err)
		}
	}
	checkTimes(t, &lines, 1, from)
	if strings.HasPrefix(text.String(), "0001") {
		t.Errorf("text: %s", text.String())
	}
}

// checkTimes decodes n records, whose times must be between from and now.
func checkTimes(t *testing.T, r io.Reader, n int, from time.Time) {
	t.Helper()
	for rec, err := range Decode(r) {
		n--
		if err != nil || rec.Time.Before(from) || rec.Time.After(time.Now()) {
			t.Errorf("%v, %v", rec, err)
		}
	}
	if n != 0 {
		t.Errorf("%d records are missing", n)
	}
}

// failWrites makes writes to the file fail until restore is called.
func failWrites(t *testing.T, j *Journal) (restore func()) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	writable := j.file
	readOnly, err := os.Open(j.path)
	if err != nil {
		t.Fatal(err)
	}
	j.file = readOnly
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.file = writable
		readOnly.Close()
	}
}

// If the TookOver cannot be written, the next successful Write writes it.
func TestTookOverAfterFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	writeEvents(t, j, prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, State: prefork.StateReady}})
	restore := failWrites(t, j)
	if err := j.writeTookOver(); err == nil {
		t.Error("no error from a read-only file")
	}
	if err := j.Write(Record{Event: prefork.ExitEvent{Exit: prefork.Exit{PID: 7}}}); err == nil {
		t.Error("no error from a read-only file")
	}
	restore()
	writeEvents(t, j, warning("n", "1"), warning("n", "2"))
	took := TookOver{State: State{PID: os.Getpid()}}.String()
	texts, bad := readAll(t, path)
	if len(texts) != 5 || bad != 0 || !slices.Equal(texts[2:], []string{took, "n: 1", "n: 2"}) {
		t.Errorf("%q, %d damaged lines", texts, bad)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != 0 {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

// setShared pretends that another manager writes to the journal too, or not.
func setShared(j *Journal, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.isShared = func() bool { return shared }
}

// A manager that is not active does not write the missing state. It would
// replace the state of the active manager.
func TestSharedWritesNoState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{})
	setShared(j, true)
	restore := failWrites(t, j)
	if err := j.Write(Record{Event: warning("n", "0")}); err == nil {
		t.Error("no error from a read-only file")
	}
	restore()
	writeEvents(t, j, warning("n", "1"))
	setShared(j, false)
	writeEvents(t, j, warning("n", "2"))
	texts, bad := readAll(t, path)
	if len(texts) != 4 || bad != 0 || texts[1] != "n: 1" || !strings.Contains(texts[2], "could not be written") {
		t.Errorf("%q, %d damaged lines", texts, bad)
	}
}

func init() { preforktest.Register("limited", limited) }

// limited writes records of two workers. Then it limits the growth of the file
// to the number of bytes in its second argument, and writes an exit and another
// worker. It reports whether these writes failed, and waits. With a third
// argument it first moves the file to that path.
func limited() {
	ossignal.Ignore(syscall.SIGXFSZ)
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		report("error: %v", err)
		os.Exit(1)
	}
	worker := func(pid int) Record {
		return Record{Event: prefork.StateEvent{Worker: prefork.WorkerInfo{PID: pid, Ordinal: pid, State: prefork.StateReady}}}
	}
	err = errors.Join(j.Write(worker(1)), j.Write(worker(2)))
	room, _ := strconv.Atoi(os.Args[2])
	info, errStat := os.Stat(os.Args[1])
	var before unix.Rlimit
	err = errors.Join(err, errStat, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	size := info.Size() + int64(room)
	if len(os.Args) > 3 {
		size = int64(room)
		err = errors.Join(err, os.Rename(os.Args[1], os.Args[3]))
	}
	limit := before
	setLimit(&limit.Cur, size)
	err = errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
	failed := [2]bool{
		j.Write(Record{Event: prefork.ExitEvent{Exit: prefork.Exit{PID: 1}}}) != nil,
		j.Write(worker(3)) != nil,
	}
	err = errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &before), j.Write(worker(4)))
	report("failed %v, then %v", failed, err)
	select {}
}

// setLimit assigns to a field whose type depends on the system.
func setLimit[T int64 | uint64](to *T, n int64) { *to = T(n) }

// After records could not be written because the disk was full, the journal
// contains the correct state again.
func TestDiskFull(t *testing.T) {
	for _, args := range [][]string{{"0"}, {"1"}, {"50"}, {"300"}, {"0", "moved"}, {"50", "moved"}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "test.journal")
		for i := range args[1:] {
			args[i+1] = filepath.Join(dir, args[i+1])
		}
		p := preforktest.Start(t, "limited", append([]string{path}, args...)...)
		p.Expect(`^failed \[(true|false) true\], then <nil>$`)
		p.Kill()
		p.Wait()
		s, err := PreviousState(path)
		var pids []int
		for _, w := range s.Workers {
			pids = append(pids, w.PID)
		}
		if err != nil || s.PID != p.PID() || !slices.Equal(pids, []int{2, 3, 4}) {
			t.Errorf("limit %s: %v with workers %v, %v", args, s, pids, err)
		}
		if texts, bad := readAll(t, path); bad > 2 || !strings.Contains(strings.Join(texts, "|"), "could not be written") {
			t.Errorf("limit %s: %d damaged lines, %q", args, bad, texts)
		}
	}
}

// A slow sync in the background does not block Write. Rotated and moved files
// are synced too.
func TestSlowSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{Sync: time.Hour})
	var synced []os.FileInfo // read after Close
	started, slow := make(chan bool), make(chan bool)
	j.mu.Lock()
	j.fsync = func(f *os.File) error {
		select {
		case started <- true:
		case <-slow:
		}
		<-slow
		info, err := f.Stat()
		synced = append(synced, info)
		return errors.Join(err, f.Sync())
	}
	j.mu.Unlock()
	go j.sync()
	<-started
	if !j.mu.TryLock() {
		close(slow)
		t.Fatal("a sync blocks Write")
	}
	j.mu.Unlock()
	os.Rename(path, path+".1")
	writeEvents(t, j, warning("n", "1"))
	os.Rename(path, path+".2")
	writeEvents(t, j, warning("n", "2"))
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	close(slow)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	names, _ := journalFiles(path)
	if len(names) != 2 {
		t.Errorf("files: %q", names)
	}
	for _, name := range append(names, path+".1", path+".2") {
		info, err := os.Stat(name)
		if err != nil || !slices.ContainsFunc(synced, func(s os.FileInfo) bool { return os.SameFile(s, info) }) {
			t.Errorf("%s was not synced: %v", name, err)
		}
	}
}

// A moved file is synced in the background, and the next Write returns the
// error of that sync.
func TestSyncAfterMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := openJournal(t, path, Config{Sync: SyncAlways})
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	j.fsync = func(f *os.File) error {
		if info, err := f.Stat(); err != nil || !os.SameFile(info, before) {
			return err
		}
		return errors.New("disk fails")
	}
	j.mu.Unlock()
	os.Rename(path, path+".1")
	writeEvents(t, j, warning("n", "1"))
	preforktest.WaitFor(t, "the error", func() bool {
		err := j.Write(Record{Event: warning("n", "2")})
		return err != nil && strings.Contains(err.Error(), "disk fails")
	})
	writeEvents(t, j, warning("n", "3"))
}
