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

// The active manager is the one that has taken over. Records of the other
// manager about its workers do not count.
func TestStateOfSuccessors(t *testing.T) {
	at := func(n int) time.Time { return moment.Add(time.Duration(n) * time.Second) }
	worker := func(pid int) prefork.StateEvent {
		w := prefork.WorkerInfo{PID: pid, State: prefork.StateStarting, Started: at(pid)}
		return prefork.StateEvent{Worker: w}
	}
	state := func(pid int, workers ...int) (s State) {
		s = State{Started: at(0), PID: pid}
		for _, w := range workers {
			s.Workers = append(s.Workers, Worker{WorkerInfo: worker(w).Worker})
		}
		return s
	}
	type by struct { // a record by its writer
		pid   int
		event fmt.Stringer
	}
	start1, start2 := by{1, Started{PID: 1}}, by{2, Started{PID: 2}}
	successor := by{2, Started{PID: 2, Successor: true}}
	took := by{2, TookOver{State: state(2, 21)}}
	spawn := func(writer, pid int) by { return by{writer, worker(pid)} }
	exit := func(writer, pid int) by { return by{writer, prefork.ExitEvent{Exit: prefork.Exit{PID: pid}}} }
	rotated := func(writer, worker int) by { return by{writer, Rotated{Reason: "size", State: state(writer, worker)}} }
	end := func(pid int) by { return by{pid, Ended{PID: pid}} }
	for _, c := range []struct {
		name    string
		records []by
		pid     int
		started int
		ended   bool
		workers []int
	}{
		{"killed",
			[]by{start1, spawn(1, 11), spawn(1, 12), exit(1, 11)},
			1, 0, false, []int{12}},
		{"killed, unknown writer",
			[]by{{0, Started{PID: 1}}, spawn(0, 11), spawn(0, 12), exit(0, 11)},
			1, 0, false, []int{12}},
		{"ended",
			[]by{start1, spawn(1, 11), exit(1, 11), end(1)},
			1, 0, true, nil},
		{"two",
			[]by{start1, spawn(1, 11), start2, spawn(2, 21)},
			2, 2, false, []int{21}},
		{"successor failed",
			[]by{start1, spawn(1, 11), successor, spawn(2, 21), exit(2, 21), end(2)},
			1, 0, false, []int{11}},
		{"successor killed",
			[]by{start1, spawn(1, 11), successor, spawn(2, 21), spawn(1, 12)},
			1, 0, false, []int{11, 12}},
		{"successor took over",
			[]by{start1, spawn(1, 11), successor, spawn(2, 21), took, exit(1, 11), end(1)},
			2, 0, false, []int{21}},
		{"successor took over, predecessor killed",
			[]by{start1, spawn(1, 11), successor, spawn(2, 21), took, spawn(1, 12), spawn(2, 22)},
			2, 0, false, []int{21, 22}},
		{"file started before the takeover",
			[]by{rotated(1, 11), took},
			2, 0, false, []int{21}},
		{"file started by the successor",
			[]by{rotated(2, 21), exit(1, 11), end(1)},
			2, 0, false, []int{21}},
		{"more workers",
			[]by{rotated(1, 11), {1, MoreWorkers{Workers: state(1, 12, 13).Workers}}, exit(1, 12)},
			1, 0, false, []int{11, 13}},
	} {
		var buf bytes.Buffer
		path := filepath.Join(t.TempDir(), "test.journal")
		w := NewJSONSink("", &buf)
		for i, r := range c.records {
			w.Write(Record{Time: at(i), Event: r.event, PID: r.pid})
		}
		os.WriteFile(path, buf.Bytes(), 0o600)
		s, err := PreviousState(path)
		var pids []int
		for _, w := range s.Workers {
			pids = append(pids, w.PID)
		}
		if err != nil || s.PID != c.pid || !s.Started.Equal(at(c.started)) ||
			s.Ended.IsZero() == c.ended || !slices.Equal(pids, c.workers) {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
}

func init() { preforktest.Register("manager", manager) }

// manager runs a Manager with a journal, and reports the events that it
// observes.
func manager() {
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		report("error: %v", err)
		os.Exit(1)
	}
	var observe func(prefork.Event)
	if !prefork.IsWorker() {
		write := Observer(j, nil)
		report("observed: %v", Started{PID: os.Getpid()})
		defer report("observed: %v", Ended{PID: os.Getpid()})
		defer j.Close()
		observe = func(ev prefork.Event) {
			write(ev)
			report("observed: %v", ev)
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
		report("error: %v", err)
	}
}

// The records are the events of the Manager. Its workers write none.
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
	texts, bad := readAll(t, path)
	if len(want) < 10 || !slices.Equal(texts, want) || bad != 0 {
		t.Errorf("%q\nwant %q", texts, want)
	}
	if s, err := PreviousState(path); err != nil || s.PID != p.PID() || s.Ended.IsZero() || len(s.Workers) > 0 {
		t.Errorf("PreviousState: %v, %v", s, err)
	}
}

func init() { preforktest.Register("upgrading", upgrading) }

// upgrading runs a Manager with a journal, which upgrades itself on SIGUSR2.
// With a second argument its workers exit at the end of the standard input.
// While a file exists at the path of the journal with the suffix ".hold",
// workers do not become ready.
func upgrading() {
	j, err := Open(os.Args[1], Config{})
	if err != nil {
		report("error: %v", err)
		os.Exit(1)
	}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2,
		Logger:     slog.New(slog.DiscardHandler),
		Observe:    Observer(j, nil),
		Readiness:  prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM},
			syscall.SIGUSR2: {Upgrade: true},
		},
	})
	if err == nil {
		if !prefork.IsWorker() {
			report("manager %d", os.Getpid())
		}
		err = pm.Run(context.Background(), func(w *prefork.Worker) error {
			if _, err := os.Stat(os.Args[1] + ".hold"); err != nil {
				w.Ready()
			}
			report("worker")
			<-w.Context().Done()
			if len(os.Args) > 2 {
				io.Copy(io.Discard, os.Stdin)
			}
			return nil
		})
	}
	report("manager %d ended %v, %v", os.Getpid(), err, j.Close())
}

// A successor writes to the same journal, which identifies the active manager.
// After a SIGKILL of the successor the journal contains its workers.
func TestSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "upgrading", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(successor)
	var locked *LockedError
	if _, err := Open(path, Config{}); !errors.As(err, &locked) {
		t.Errorf("Open while the successor runs: %v", err)
	}
	preforktest.WaitFor(t, "the state of the successor", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == pid && len(s.Workers) == 2
	})
	syscall.Kill(pid, syscall.SIGKILL)
	p.WaitGone()
	s, err := PreviousState(path)
	if err != nil || s.PID != pid || !s.Ended.IsZero() || len(s.Workers) != 2 {
		t.Errorf("after kill -9: %v, %v", s, err)
	}
	texts, bad := readAll(t, path)
	for _, w := range []fmt.Stringer{
		Started{PID: pid, Successor: true}, TookOver{State: State{PID: pid}}, Ended{PID: p.PID()},
	} {
		if !slices.Contains(texts, w.String()) || bad != 0 {
			t.Errorf("no %q in %q, %d damaged lines", w, texts, bad)
		}
	}
	// The kernel may still be closing the files of the killed process.
	j := openJournal(t, path, Config{LockTimeout: time.Minute})
	if previous := j.Previous(); previous.PID != pid || len(previous.Workers) != 2 {
		t.Errorf("Previous of the next manager: %v", previous)
	}
}

// If a successor is killed before it takes over, its workers do not count as
// workers of the remaining manager.
func TestSuccessorKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "upgrading", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	preforktest.WaitFor(t, "the state of the manager", func() bool {
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
	preforktest.WaitFor(t, "the failed upgrade", func() bool {
		for rec, err := range Read(path) {
			if _, failed := rec.Event.(prefork.UpgradeFailedEvent); failed && err == nil {
				return true
			}
		}
		return false
	})
	after, errAfter := PreviousState(path)
	for _, s := range []State{during, after} {
		if err != nil || errAfter != nil || s.PID != p.PID() || len(s.Workers) != 2 ||
			s.Workers[0].PID != before.Workers[0].PID || s.Workers[1].PID != before.Workers[1].PID {
			t.Errorf("%v, %v, %v, with %v; want %v", s, err, errAfter, s.Workers, before.Workers)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.WaitGone()
}

// A successor that cannot open the journal leaves the lock with the old
// manager.
func TestSuccessorCannotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "upgrading", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	os.Chmod(path, 0o666)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^error: .*others could write to it: correct its owner and mode$`)
	os.Chmod(path, 0o600)
	var locked *LockedError
	if _, err := Open(path, Config{}); !errors.As(err, &locked) || locked.PID != p.PID() {
		t.Errorf("Open while the manager runs: %v", err)
	}
	p.Signal(syscall.SIGTERM)
	p.Expect(` ended <nil>, <nil>$`)
	p.WaitGone()
}

// A file that a successor starts does not contain the workers of its
// predecessor.
func TestSuccessorRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "upgrading", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1]
	pid, _ := strconv.Atoi(successor)
	preforktest.WaitFor(t, "the state of the successor", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == pid && len(s.Workers) == 2
	})
	os.Rename(path, path+".1")
	syscall.Kill(pid, syscall.SIGHUP)
	p.Expect(`^worker$`)
	p.Expect(`^worker$`)
	preforktest.WaitFor(t, "only workers of the next generation", func() bool {
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

// The successor writes the first record of a new file, because only the active
// manager knows the state.
func TestSuccessorStartsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "upgrading", path, "linger")
	p.Cmd.Stdin = r
	p.Start()
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	p.Signal(syscall.SIGUSR2)
	successor, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`)[0][1])
	preforktest.WaitFor(t, "the state of the successor", func() bool {
		s, err := PreviousState(path)
		return err == nil && s.PID == successor
	})
	thaw := preforktest.Freeze(t, successor)
	os.Rename(path, path+".1")
	os.WriteFile(path, nil, 0o600)
	w.Close()
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))
	if texts, _ := readAll(t, path); len(texts) > 0 {
		t.Errorf("the predecessor has written to the new file: %q", texts)
	}
	thaw()
	syscall.Kill(successor, syscall.SIGTERM)
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
	p.WaitGone()
}

// The lock goes to the successor, although its file was removed before the
// upgrade and is removed after it (36).
func TestSuccessorWithoutLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	p := preforktest.Start(t, "upgrading", path)
	p.ExpectAll(`^manager \d+$`, `^worker$`, `^worker$`)
	os.Remove(path + ".lock")
	p.Signal(syscall.SIGUSR2)
	successor, _ := strconv.Atoi(p.ExpectAll(`^manager (\d+)$`, `^worker$`, `^worker$`, fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, p.PID()))[0][1])
	holder := func() int {
		var locked *LockedError
		if _, err := Open(path, Config{}); !errors.As(err, &locked) {
			t.Errorf("Open while the successor runs: %v", err)
			return 0
		}
		return locked.PID
	}
	preforktest.WaitFor(t, "the successor as the holder", func() bool { return holder() == successor })
	os.Remove(path + ".lock")
	syscall.Kill(successor, syscall.SIGHUP)
	p.Expect(`^worker$`)
	p.Expect(`^worker$`)
	if pid := holder(); pid != successor {
		t.Errorf("the lock is held by process %d, want %d", pid, successor)
	}
	if content, err := os.ReadFile(path + ".lock"); err != nil || string(content) != fmt.Sprintf("%d\n", successor) {
		t.Errorf("%q, %v", content, err)
	}
	syscall.Kill(successor, syscall.SIGTERM)
	p.Expect(fmt.Sprintf(`^manager %d ended <nil>, <nil>$`, successor))
	p.WaitGone()
	if _, err := os.Lstat(path + ".lock"); err == nil {
		t.Error("the lock file still exists")
	}
	openJournal(t, path, Config{})
}
