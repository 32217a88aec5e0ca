//go:build unix

package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
	now := time.Now()
	j := open(t, path, Config{MaxAge: time.Hour, Keep: 2})
	for i := range 6 {
		if err := j.Write(Record{Time: now.Add(time.Duration(i) * 40 * time.Minute), Event: Warning{"n", strconv.Itoa(i)}}); err != nil {
			t.Fatal(err)
		}
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
	if err := j.Write(Record{Time: time.Now().Add(2 * time.Hour), Event: Warning{}}); err != nil {
		t.Fatal(err)
	}
	if again, _ := files(path); len(again) != len(names)+1 {
		t.Errorf("files: %q", again)
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

// Heirs: who rules is who has taken over, and what the other one writes of its workers does not count.
func TestStateOfHeirs(t *testing.T) {
	at := func(n int) time.Time { return moment.Add(time.Duration(n) * time.Second) }
	worker := func(pid int) prefork.StateEvent {
		return prefork.StateEvent{Worker: prefork.WorkerInfo{PID: pid, State: prefork.StateStarting, Started: at(pid)}}
	}
	exit := func(pid int) prefork.ExitEvent { return prefork.ExitEvent{Exit: prefork.Exit{PID: pid}} }
	state := func(pid int, workers ...int) (s State) {
		s = State{Started: at(0), PID: pid}
		for _, w := range workers {
			s.Workers = append(s.Workers, worker(w).Worker)
		}
		return s
	}
	type by struct { // a record, and who writes it
		pid   int
		event fmt.Stringer
	}
	for _, c := range []struct {
		name    string
		records []by
		pid     int
		started int
		ended   bool
		workers []int
	}{
		{"killed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {1, worker(12)}, {1, exit(11)}}, 1, 0, false, []int{12}},
		{"killed, of no writer", []by{{0, Started{PID: 1}}, {0, worker(11)}, {0, worker(12)}, {0, exit(11)}}, 1, 0, false, []int{12}},
		{"ended", []by{{1, Started{PID: 1}}, {1, worker(11)}, {1, exit(11)}, {1, Ended{1}}}, 1, 0, true, nil},
		{"two", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2}}, {2, worker(21)}}, 2, 2, false, []int{21}},
		{"heir failed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Heir: true}}, {2, worker(21)}, {2, exit(21)}, {2, Ended{2}}}, 1, 0, false, []int{11}},
		{"heir killed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Heir: true}}, {2, worker(21)}, {1, worker(12)}}, 1, 0, false, []int{11, 12}},
		{"heir took over", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Heir: true}}, {2, worker(21)}, {2, TookOver{state(2, 21)}}, {1, exit(11)}, {1, Ended{1}}}, 2, 0, false, []int{21}},
		{"heir took over, the one before it killed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Heir: true}}, {2, worker(21)}, {2, TookOver{state(2, 21)}}, {1, worker(12)}, {2, worker(22)}}, 2, 0, false, []int{21, 22}},
		{"file begun before the heir took over", []by{{1, Rotated{"size", state(1, 11)}}, {2, TookOver{state(2, 21)}}}, 2, 0, false, []int{21}},
		{"file begun by the heir", []by{{2, Rotated{"size", state(2, 21)}}, {1, exit(11)}, {1, Ended{1}}}, 2, 0, false, []int{21}},
		{"many", []by{{1, Rotated{"size", state(1, 11)}}, {1, MoreWorkers{state(1, 12, 13).Workers}}, {1, exit(12)}}, 1, 0, false, []int{11, 13}},
	} {
		var buf bytes.Buffer
		path := filepath.Join(t.TempDir(), "test.journal")
		w := NewWriter("", &buf)
		for i, r := range c.records {
			w.Write(Record{Time: at(i), Event: r.event, PID: r.pid})
		}
		os.WriteFile(path, buf.Bytes(), 0o600)
		s, err := PreviousState(path)
		var pids []int
		for _, w := range s.Workers {
			pids = append(pids, w.PID)
		}
		if err != nil || s.PID != c.pid || !s.Started.Equal(at(c.started)) || s.Ended.IsZero() == c.ended || !slices.Equal(pids, c.workers) {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
}

// writerProgram opens the journal of its first argument, says how the one before it ended, and writes of workers that come and go,
// each behind the line that says so.
func writerProgram() {
	j, err := Open(os.Args[1], Config{MaxSize: 20_000, LockTimeout: 10 * time.Second})
	if err != nil {
		say("cannot: %v", err)
		os.Exit(1)
	}
	p := j.Previous()
	say("previous %d ended %t workers %d", p.PID, !p.Ended.IsZero(), len(p.Workers))
	for i := 1; ; i++ {
		j.Write(Record{Time: time.Now(), Event: prefork.StateEvent{Worker: prefork.WorkerInfo{PID: i, Ordinal: i, State: prefork.StateStarting}}})
		if i%3 != 0 {
			j.Write(Record{Time: time.Now(), Event: prefork.ExitEvent{Exit: prefork.Exit{PID: i}}})
		}
	}
}

// A journal through many kill -9 of its writer: every complete line is readable, and PreviousState is right each time.
func TestKills(t *testing.T) {
	n := 20
	if *long {
		n = 1000
	}
	path := filepath.Join(t.TempDir(), "test.journal")
	last, bad := 0, 0
	for i := range n {
		p := preforktest.Start(t, "writer", path)
		got := p.Expect(`^previous (\d+) ended (true|false) workers (\d+)$`)
		if got[1] != strconv.Itoa(last) || got[2] != "false" {
			t.Fatalf("start %d after %d: %s", i, last, got[0])
		}
		last = p.PID()
		time.Sleep(time.Duration(i*137%5000) * time.Microsecond) // at all moments
		p.Kill()
		p.Wait()
		if i%3 == 0 { // as a machine that fails would leave it
			tear(t, path, i)
		}
		bad = checkState(t, path, last)
	}
	names, _ := files(path)
	t.Logf("%d kills: %d lines are torn, in the last %d files", n, bad, len(names))
}

// tear cuts off a part of the last line, if it is of a worker.
func tear(t *testing.T, path string, part int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return // killed in the middle of a rotation
	}
	from := bytes.LastIndexByte(bytes.TrimSuffix(content, []byte("\n")), '\n') + 1
	if line := content[from:]; bytes.Contains(line, []byte(`"worker"`)) || bytes.Contains(line, []byte(`"exit"`)) {
		os.Truncate(path, int64(from+1+part%(len(line)-1)))
	}
}

// checkState compares PreviousState with what the lines of the last writer say, and returns how many lines of the last file
// are no records; only one behind which nothing follows, or which a later writer has ended, may be.
func checkState(t *testing.T, path string, pid int) (bad int) {
	t.Helper()
	s, err := PreviousState(path)
	if err != nil || s.PID != pid || !s.Ended.IsZero() {
		t.Fatalf("PreviousState after %d: %v, %v", pid, s, err)
	}
	// The count by hand: from the last start on, or from the first file that is kept.
	workers := make(map[int]bool)
	started, first := false, true
	for rec, err := range Read(path) {
		var line *LineError
		if errors.As(err, &line) {
			bad++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		switch e := rec.Event.(type) {
		case Started:
			started = e.PID == pid
			clear(workers)
		case Rotated:
			if first {
				started = e.State.PID == pid
				for _, w := range e.State.Workers {
					workers[w.PID] = true
				}
			}
		case prefork.StateEvent:
			workers[e.Worker.PID] = true
		case prefork.ExitEvent:
			delete(workers, e.Exit.PID)
		}
		first = false
	}
	if !started || len(workers) != len(s.Workers) {
		t.Fatalf("after %d: started %t, %d workers, and PreviousState has %d", pid, started, len(workers), len(s.Workers))
	}
	for _, w := range s.Workers {
		if !workers[w.PID] {
			t.Fatalf("after %d: worker %d", pid, w.PID)
		}
	}
	return bad
}

func init() { programs["manager"] = manager }

// manager is a Manager with a journal, which stops when all workers are ready, and says what it has observed.
func manager() {
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		say("cannot: %v", err)
		os.Exit(1)
	}
	var observe func(prefork.Event)
	if !prefork.IsWorker() {
		write := Observer(j, nil)
		say("observed: %v", Started{PID: os.Getpid()})
		defer say("observed: %v", Ended{os.Getpid()})
		defer j.Close()
		observe = func(ev prefork.Event) {
			write(ev)
			say("observed: %v", ev)
		}
	}
	pm, err := prefork.New(prefork.Config{MaxWorkers: 2, Logger: slog.New(slog.DiscardHandler), Observe: observe})
	if err == nil {
		err = pm.Run(context.Background(), func(w *prefork.Worker) error {
			<-w.Context().Done()
			return nil
		})
	}
	if err != nil {
		say("cannot: %v", err)
	}
}

// A Manager's events come out as they went in, and its workers write nothing.
func TestManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "manager", path)
	p.ExpectN(2, ` ready$`)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	p.WaitGone()
	var want []string
	for _, line := range p.Lines() {
		if text, ok := strings.CutPrefix(line, "observed: "); ok {
			want = append(want, text)
		}
	}
	texts, bad := all(t, path)
	if len(want) < 10 || !slices.Equal(texts, want) || bad != 0 {
		t.Errorf("%q\nwant %q", texts, want)
	}
	if s, err := PreviousState(path); err != nil || s.PID != p.PID() || s.Ended.IsZero() || len(s.Workers) > 0 {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

func init() { programs["heirs"] = heirs }

// heirs is a Manager with a journal, which upgrades itself on USR2. With a second argument its workers end when the standard
// input does. While there is a file with ".hold" behind the journal's name, no worker gets ready.
func heirs() {
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		say("cannot: %v", err)
		os.Exit(1)
	}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2, Logger: slog.New(slog.DiscardHandler), Observe: Observer(j, nil), Readiness: prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Signal: syscall.SIGTERM}, syscall.SIGUSR2: {Upgrade: true}},
	})
	if err == nil {
		if !prefork.IsWorker() {
			say("manager %d", os.Getpid())
		}
		err = pm.Run(context.Background(), func(w *prefork.Worker) error {
			if _, err := os.Stat(os.Args[1] + ".hold"); err != nil {
				w.Ready()
			}
			say("worker")
			<-w.Context().Done()
			if len(os.Args) > 2 {
				io.Copy(io.Discard, os.Stdin)
			}
			return nil
		})
	}
	say("manager %d ended %v, %v", os.Getpid(), err, j.Close())
}

// An heir writes the same journal, from its start on; who reads it learns who rules, and kill -9 of the heir leaves its workers.
func TestHeirs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "heirs", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	heir := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(heir)
	var running *RunningError
	if _, err := Open(path, Config{}); !errors.As(err, &running) {
		t.Errorf("Open while the heir runs: %v", err)
	}
	preforktest.WaitFor(t, "word of the heir", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == pid && len(s.Workers) == 2
	})
	syscall.Kill(pid, syscall.SIGKILL)
	p.WaitGone()
	s, err := PreviousState(path)
	if err != nil || s.PID != pid || !s.Ended.IsZero() || len(s.Workers) != 2 {
		t.Errorf("after kill -9: %v, %v", s, err)
	}
	texts, bad := all(t, path)
	want := []string{fmt.Sprintf("manager %d has started as an heir", pid), fmt.Sprintf("manager %d has taken over", pid), fmt.Sprintf("manager %d has ended", p.PID())}
	for _, w := range want {
		if !slices.Contains(texts, w) || bad != 0 {
			t.Errorf("%q is not in %q", w, texts)
		}
	}
	j := open(t, path, Config{})
	if previous := j.Previous(); previous.PID != pid || len(previous.Workers) != 2 {
		t.Errorf("the next manager learns %v", previous)
	}
}

// The workers of an heir that was killed before it has taken over are none of the manager that goes on.
func TestHeirKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "heirs", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	preforktest.WaitFor(t, "word of the manager", func() bool {
		s, err := PreviousState(path)
		return err == nil && len(s.Workers) == 2
	})
	before, err := PreviousState(path)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path+".hold", nil, 0o600)
	p.Signal(syscall.SIGUSR2)
	heir, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`)[0][1])
	during, err := PreviousState(path)
	syscall.Kill(heir, syscall.SIGKILL)
	preforktest.WaitFor(t, "word of its end", func() bool {
		texts, _ := collect(t, Read(path))
		return strings.Contains(strings.Join(texts, "\n"), "upgrade failed")
	})
	after, errAfter := PreviousState(path)
	for _, s := range []State{during, after} {
		if err != nil || errAfter != nil || s.PID != p.PID() || len(s.Workers) != 2 || s.Workers[0].PID != before.Workers[0].PID || s.Workers[1].PID != before.Workers[1].PID {
			t.Errorf("%v, %v, %v, with %v; want %v", s, err, errAfter, s.Workers, before.Workers)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
}

// An heir that cannot open the journal leaves the lock to the manager that goes on.
func TestHeirCannotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "heirs", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	os.Chmod(path, 0o666)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^cannot: .*others could write into it$`)
	os.Chmod(path, 0o600)
	var running *RunningError
	if _, err := Open(path, Config{}); !errors.As(err, &running) || running.PID != p.PID() {
		t.Errorf("Open while the manager runs: %v", err)
	}
	p.Signal(syscall.SIGTERM)
	p.Expect(` ended <nil>, <nil>$`)
	p.WaitGone()
}

// A file that an heir begins does not tell of the workers of the manager before it, whose ends that has written.
func TestHeirRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "heirs", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	heir := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(heir)
	preforktest.WaitFor(t, "word of the heir", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == pid && len(s.Workers) == 2
	})
	os.Rename(path, path+".1")
	syscall.Kill(pid, syscall.SIGHUP)
	p.Expect(`^worker$`)
	p.Expect(`^worker$`)
	preforktest.WaitFor(t, "the workers of the next generation alone", func() bool {
		s, err := PreviousState(path)
		ready := 0
		for _, w := range s.Workers {
			if w.Generation == 2 && w.State == prefork.StateReady {
				ready++
			}
		}
		return err == nil && s.PID == pid && ready == 2 && len(s.Workers) == 2
	})
	syscall.Kill(pid, syscall.SIGTERM)
	p.WaitGone()
}

// A file that the heir has made and not begun yet is the heir's to begin: only that knows how things stand.
func TestHeirBegins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "heirs", path, "linger")
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	heir, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`)[0][1])
	preforktest.WaitFor(t, "word of the heir", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == heir
	})
	syscall.Kill(heir, syscall.SIGSTOP)
	os.Rename(path, path+".1")
	os.WriteFile(path, nil, 0o600)
	w.Close()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	if texts, _ := all(t, path); len(texts) > 0 {
		t.Errorf("the manager before it has begun the file: %q", texts)
	}
	syscall.Kill(heir, syscall.SIGCONT)
	syscall.Kill(heir, syscall.SIGTERM)
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, heir))
	p.WaitGone()
}
