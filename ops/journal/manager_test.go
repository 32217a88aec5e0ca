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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// Successors: who rules is who has taken over, and what the other one writes of its workers does not count.
func TestStateOfSuccessors(t *testing.T) {
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
		{"successor failed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Successor: true}}, {2, worker(21)}, {2, exit(21)}, {2, Ended{2}}}, 1, 0, false, []int{11}},
		{"successor killed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Successor: true}}, {2, worker(21)}, {1, worker(12)}}, 1, 0, false, []int{11, 12}},
		{"successor took over", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Successor: true}}, {2, worker(21)}, {2, TookOver{state(2, 21)}}, {1, exit(11)}, {1, Ended{1}}}, 2, 0, false, []int{21}},
		{"successor took over, the one before it killed", []by{{1, Started{PID: 1}}, {1, worker(11)}, {2, Started{PID: 2, Successor: true}}, {2, worker(21)}, {2, TookOver{state(2, 21)}}, {1, worker(12)}, {2, worker(22)}}, 2, 0, false, []int{21, 22}},
		{"file begun before the successor took over", []by{{1, Rotated{"size", state(1, 11)}}, {2, TookOver{state(2, 21)}}}, 2, 0, false, []int{21}},
		{"file begun by the successor", []by{{2, Rotated{"size", state(2, 21)}}, {1, exit(11)}, {1, Ended{1}}}, 2, 0, false, []int{21}},
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

func init() { programs["successors"] = successors }

// successors is a Manager with a journal, which upgrades itself on USR2. With a second argument its workers end when the standard
// input does. While there is a file with ".hold" behind the journal's name, no worker gets ready.
func successors() {
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

// A successor writes the same journal, from its start on; who reads it learns who rules, and kill -9 of the successor leaves its workers.
func TestSuccessors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "successors", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(successor)
	var running *RunningError
	if _, err := Open(path, Config{}); !errors.As(err, &running) {
		t.Errorf("Open while the successor runs: %v", err)
	}
	preforktest.WaitFor(t, "word of the successor", func() bool {
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
	want := []string{fmt.Sprintf("manager %d has started as a successor", pid), fmt.Sprintf("manager %d has taken over", pid), fmt.Sprintf("manager %d has ended", p.PID())}
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

// The workers of a successor that was killed before it has taken over are none of the manager that goes on.
func TestSuccessorKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "successors", path)
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
	successor, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`)[0][1])
	during, err := PreviousState(path)
	syscall.Kill(successor, syscall.SIGKILL)
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

// A successor that cannot open the journal leaves the lock to the manager that goes on.
func TestSuccessorCannotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "successors", path)
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

// A file that a successor begins does not tell of the workers of the manager before it, whose ends that has written.
func TestSuccessorRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "successors", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(successor)
	preforktest.WaitFor(t, "word of the successor", func() bool {
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

// A file that the successor has made and not begun yet is the successor's to begin: only that knows how things stand.
func TestSuccessorBegins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "successors", path, "linger")
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`)[0][1])
	preforktest.WaitFor(t, "word of the successor", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == successor
	})
	thaw := preforktest.Freeze(t, successor)
	os.Rename(path, path+".1")
	os.WriteFile(path, nil, 0o600)
	w.Close()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	if texts, _ := all(t, path); len(texts) > 0 {
		t.Errorf("the manager before it has begun the file: %q", texts)
	}
	thaw()
	syscall.Kill(successor, syscall.SIGTERM)
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
	p.WaitGone()
}
