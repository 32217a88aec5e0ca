//go:build unix

package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// writerProgram opens the journal of its first argument, reports the previous
// state, and writes records of workers that start and exit.
func writerProgram() {
	j, err := Open(os.Args[1], Config{MaxSize: 20_000, LockTimeout: 10 * time.Second})
	if err != nil {
		report("error: %v", err)
		os.Exit(1)
	}
	p := j.Previous()
	report("previous %d ended %t workers %d", p.PID, !p.Ended.IsZero(), len(p.Workers))
	for i := 1; ; i++ {
		j.Write(Record{Time: time.Now(), Event: prefork.StateEvent{Worker: prefork.WorkerInfo{PID: i, Ordinal: i, State: prefork.StateStarting}}})
		if i%3 != 0 {
			j.Write(Record{Time: time.Now(), Event: prefork.ExitEvent{Exit: prefork.Exit{PID: i}}})
		}
	}
}

// After each of many SIGKILLs of the writer, every complete line is readable,
// and PreviousState is correct.
func TestKills(t *testing.T) {
	n := 8
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
		time.Sleep(time.Duration(i*1373%5000) * time.Microsecond) // kill at varying moments
		p.Kill()
		p.Wait()
		if i%3 == 0 { // as after a crash of the machine
			truncateLastLine(t, path, i)
		}
		last, bad = checkState(t, path, last, p.PID())
	}
	names, _ := journalFiles(path)
	t.Logf("%d kills: %d partial lines in the last %d files", n, bad, len(names))
}

// truncateLastLine truncates the last line, if it is about a worker.
func truncateLastLine(t *testing.T, path string, part int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return // killed during a rotation
	}
	from := bytes.LastIndexByte(bytes.TrimSuffix(content, []byte("\n")), '\n') + 1
	if line := content[from:]; bytes.Contains(line, []byte(`"worker"`)) || bytes.Contains(line, []byte(`"exit"`)) {
		os.Truncate(path, int64(from+1+part%(len(line)-1)))
	}
}

// checkState compares PreviousState with all records of the last writer, or of
// the one before if the last had no event. It returns that writer and the number
// of damaged lines.
func checkState(t *testing.T, path string, before, pid int) (last, bad int) {
	t.Helper()
	s, err := PreviousState(path)
	if err != nil || s.PID != pid && s.PID != before || !s.Ended.IsZero() {
		t.Fatalf("PreviousState after %d: %v, %v", pid, s, err)
	}
	writer, workers, bad := countWorkers(t, path)
	if writer != s.PID || len(workers) != len(s.Workers) {
		t.Fatalf("after %d: started %d, %d workers; PreviousState has %d workers",
			pid, writer, len(workers), len(s.Workers))
	}
	for _, w := range s.Workers {
		if !workers[w.PID] {
			t.Fatalf("after %d: PreviousState has worker %d, the records have not", pid, w.PID)
		}
	}
	return writer, bad
}

// countWorkers returns the last manager and its workers, independently of
// tracker. It reads from the first file that is kept.
func countWorkers(t *testing.T, path string) (pid int, workers map[int]bool, bad int) {
	t.Helper()
	workers = make(map[int]bool)
	first := true
	starting, ran := 0, false
	began := func() {
		if starting != 0 {
			pid, starting = starting, 0
			clear(workers)
		}
		ran = true
	}
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
			if starting = e.PID; !ran {
				pid = e.PID
			}
		case Rotated:
			if first {
				pid, ran = e.State.PID, true
				addWorkers(workers, e.State.Workers)
			}
		case prefork.StateEvent:
			began()
			workers[e.Worker.PID] = true
		case prefork.ExitEvent:
			began()
			delete(workers, e.Exit.PID)
		}
		first = false
	}
	return pid, workers, bad
}

func addWorkers(set map[int]bool, workers []Worker) {
	for _, w := range workers {
		set[w.PID] = true
	}
}
