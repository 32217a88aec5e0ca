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

// Only one process writes a journal; "already running" says who.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	var running *RunningError
	if _, err := Open(path, Config{}); !errors.As(err, &running) || running.PID != os.Getpid() || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second Open: %v", err)
	}
	from := time.Now()
	if _, err := Open(path, Config{LockTimeout: 50 * time.Millisecond}); !errors.As(err, &running) || time.Since(from) < 50*time.Millisecond {
		t.Errorf("second Open that waits: %v after %v", err, time.Since(from))
	}
	time.AfterFunc(20*time.Millisecond, func() { j.Close() })
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Error(err)
	}
	second := open(t, path, Config{LockTimeout: time.Minute})
	if err := errors.Join(second.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("the lock is left")
	}
	if err := second.Write(Record{Time: time.Now(), Event: Warning{}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// What cannot be opened says so, and leaves nothing behind.
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
		"none/x": "no such file", "shared/x": "every user may make files", "link": "symbolic link", "pipe": "no plain file", "loose": "others could write",
	} {
		if _, err := Open(filepath.Join(dir, name), Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if _, err := os.Stat(filepath.Join(dir, name) + ".lock"); err == nil {
			t.Errorf("%s: the lock is left", name)
		}
	}
	if _, err := PreviousState(filepath.Join(dir, "none")); !errors.Is(err, ErrNoStart) {
		t.Errorf("PreviousState of no file: %v", err)
	}
}

// A last line that was cut off costs that line alone, and is ended by the next writer (C3).
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	write(t, j, Warning{"a", "1"}, Warning{"a", "2"})
	j.Close()
	whole, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	kept := bytes.Join(lines[:len(lines)-3], nil) // without "2" and the end
	for cutAt := 1; cutAt < len(lines[len(lines)-3])-1; cutAt += 7 {
		if err := os.WriteFile(path, append(slices.Clone(kept), lines[len(lines)-3][:cutAt]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if texts, bad := all(t, path); len(texts) != 2 || bad != 1 {
			t.Errorf("cut at %d: %q and %d bad lines", cutAt, texts, bad)
		}
		if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || !s.Ended.IsZero() {
			t.Errorf("cut at %d: %v, %v", cutAt, s, err)
		}
		j := open(t, path, Config{})
		write(t, j, Warning{"b", "3"})
		j.Close()
		texts, bad := all(t, path)
		if len(texts) != 5 || bad != 1 || texts[3] != "b: 3" {
			t.Errorf("cut at %d and written on: %q and %d bad lines", cutAt, texts, bad)
		}
	}
}

func TestSync(t *testing.T) {
	for _, sync := range []time.Duration{SyncAlways, time.Millisecond, time.Hour} {
		path := filepath.Join(t.TempDir(), "test.journal")
		j := open(t, path, Config{Sync: sync, MaxSize: 300})
		for i := range 10 {
			write(t, j, Warning{"n", strconv.Itoa(i)})
		}
		time.Sleep(5 * time.Millisecond)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

type failing struct{ err error }

func (f *failing) ID() string { return "failing" }

func (f *failing) Write(Record) error { return f.err }

// Several at once, one of them for people; an error of one keeps nothing from the others, and is logged once.
func TestMulti(t *testing.T) {
	var lines, text, log bytes.Buffer
	bad := &failing{errors.New("disk full")}
	m := Multi(bad, NewWriter("a", &lines), NewHuman("stderr", &text))
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
		t.Errorf("the error is logged %d times: %s", n, log.String())
	}
	if n := strings.Count(lines.String(), "\n"); n != 5 {
		t.Errorf("%d lines", n)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} from 1 to 2 workers\n`).MatchString(text.String()) {
		t.Errorf("for people: %s", text.String())
	}
	for _, r := range []Record{{}, {Time: moment, Event: fmt.Stringer(time.Second)}} {
		if NewWriter("a", io.Discard).Write(r) == nil {
			t.Errorf("%v is written", r)
		}
	}
	if NewHuman("a", io.Discard).Write(Record{}) == nil {
		t.Error("nothing is written for people")
	}
}

// An error of great length is cut, so that what is written can be read.
func TestLongErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	long := errors.New(strings.Repeat("x", 5<<20))
	write(t, j, prefork.ReloadFailedEvent{Err: long}, prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Err: long}}, Warning{"a", long.Error()})
	if texts, bad := all(t, path); len(texts) != 4 || bad != 0 {
		t.Errorf("%d records, %d bad lines", len(texts), bad)
	}
}

// A record without a time is of the time at which it is written, and can be read; a file that it begins too.
func TestNoTime(t *testing.T) {
	from := time.Now()
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	for _, name := range []string{path + ".1", path + ".2"} {
		if err := j.Write(Record{Event: Warning{"n", "1"}}); err != nil {
			t.Fatal(err)
		}
		os.Rename(path, name)
	}
	if err := j.Write(Record{Event: Warning{"n", "2"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path + ".1", path + ".2", path} {
		if texts, bad := all(t, name); len(texts) != 2 || bad != 0 {
			t.Errorf("%s: %q and %d bad lines", name, texts, bad)
		}
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
	var lines, text bytes.Buffer
	for _, sink := range []Sink{NewWriter("", &lines), NewHuman("", &text)} {
		if err := sink.Write(Record{Event: Warning{"n", "3"}}); err != nil {
			t.Error(err)
		}
	}
	n := 0
	content, _ := os.ReadFile(path)
	for rec, err := range Decode(io.MultiReader(bytes.NewReader(content), &lines)) {
		n++
		if err != nil || rec.Time.Before(from) || rec.Time.After(time.Now()) {
			t.Errorf("%v, %v", rec, err)
		}
	}
	if n != 3 || strings.HasPrefix(text.String(), "0001") {
		t.Errorf("%d records; for people: %s", n, text.String())
	}
}

// failWrites makes writes to the file fail, until ok is called.
func failWrites(t *testing.T, j *Journal) (ok func()) {
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

// That a successor has taken over is written when it can be.
func TestTookOverWhenFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{})
	write(t, j, prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, State: prefork.StateReady}})
	ok := failWrites(t, j)
	if err := j.takeOver(); err == nil {
		t.Error("it is written")
	}
	if err := j.Write(Record{Event: prefork.ExitEvent{Exit: prefork.Exit{PID: 7}}}); err == nil {
		t.Error("it is written")
	}
	ok()
	write(t, j, Warning{"n", "1"}, Warning{"n", "2"})
	took := TookOver{State{PID: os.Getpid()}}.String()
	texts, bad := all(t, path)
	if len(texts) != 5 || bad != 0 || !slices.Equal(texts[2:], []string{took, "n: 1", "n: 2"}) {
		t.Errorf("%q, %d bad lines", texts, bad)
	}
	if s, err := PreviousState(path); err != nil || s.PID != os.Getpid() || len(s.Workers) != 0 {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

func init() { programs["full"] = full }

// full writes of workers; while there is room for so many bytes as its second argument says, of an exit and a worker. Then it says
// whether they failed, and waits to be killed. With a third argument the file is moved away before.
func full() {
	ossignal.Ignore(syscall.SIGXFSZ)
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		say("cannot: %v", err)
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
	say("failed %v, then %v", failed, err)
	select {}
}

// setLimit copes with what differs by system.
func setLimit[T int64 | uint64](to *T, n int64) { *to = T(n) }

// What a full disk has kept from being written is made good when there is room again, before anybody is told the state by it.
func TestFull(t *testing.T) {
	for _, args := range [][]string{{"0"}, {"1"}, {"50"}, {"300"}, {"0", "moved"}, {"50", "moved"}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "test.journal")
		for i := range args[1:] {
			args[i+1] = filepath.Join(dir, args[i+1])
		}
		p := preforktest.Start(t, "full", append([]string{path}, args...)...)
		p.Expect(`^failed \[(true|false) true\], then <nil>$`)
		p.Kill()
		p.Wait()
		s, err := PreviousState(path)
		var pids []int
		for _, w := range s.Workers {
			pids = append(pids, w.PID)
		}
		if err != nil || s.PID != p.PID() || !slices.Equal(pids, []int{2, 3, 4}) {
			t.Errorf("room for %s: %v with workers %v, %v", args, s, pids, err)
		}
		if texts, bad := all(t, path); bad > 2 || !strings.Contains(strings.Join(texts, "|"), "could not be written") {
			t.Errorf("room for %s: %d bad lines, %q", args, bad, texts)
		}
	}
}

// A disk that is slow holds up no Write, and what is written goes to it all the same: also a file that was rotated or moved.
func TestSlowSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{Sync: time.Hour})
	var synced []os.FileInfo // read behind Close
	began, slow := make(chan bool), make(chan bool)
	j.mu.Lock()
	j.fsync = func(f *os.File) error {
		select {
		case began <- true:
		case <-slow:
		}
		<-slow
		info, err := f.Stat()
		synced = append(synced, info)
		return errors.Join(err, f.Sync())
	}
	j.mu.Unlock()
	go j.sync()
	<-began
	if !j.mu.TryLock() {
		close(slow)
		t.Fatal("a sync holds up Write")
	}
	j.mu.Unlock()
	os.Rename(path, path+".1")
	write(t, j, Warning{"n", "1"})
	os.Rename(path, path+".2")
	write(t, j, Warning{"n", "2"})
	if err := j.Rotate(); err != nil {
		t.Error(err)
	}
	close(slow)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	names, _ := files(path)
	if len(names) != 2 {
		t.Errorf("files: %q", names)
	}
	for _, name := range append(names, path+".1", path+".2") {
		info, err := os.Stat(name)
		if err != nil || !slices.ContainsFunc(synced, func(s os.FileInfo) bool { return os.SameFile(s, info) }) {
			t.Errorf("%s is not synced: %v", name, err)
		}
	}
}

// So too where the file is moved while nothing is being synced, and the error of a sync is told by the next Write.
func TestSyncOfMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	j := open(t, path, Config{Sync: SyncAlways})
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
	write(t, j, Warning{"n", "1"})
	preforktest.WaitFor(t, "the error", func() bool {
		err := j.Write(Record{Event: Warning{"n", "2"}})
		return err != nil && strings.Contains(err.Error(), "disk fails")
	})
	write(t, j, Warning{"n", "3"})
}
