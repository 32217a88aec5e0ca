//go:build unix

package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	ossignal "os/signal"
	"path/filepath"
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

// A ledger is shared memory in which a writer notes its progress, so that the
// notes survive its SIGKILL.
type ledger []byte

const (
	ledgerSize = 1 << 20
	untried    = 0
	tried      = 1 // Write was called
	written    = 2 // and has returned
	failed     = 3 // with an error

	truncatedAt = 8 // the journal was truncated and has no state yet
	notesFrom   = 16
)

func openLedger(name string) (ledger, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(ledgerSize); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, ledgerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func (l ledger) note(n int) byte { return l[notesFrom+n] }

// last returns the number of the last record that was written, and of the last
// that was tried.
func (l ledger) last() (w, t int) {
	for n := 1; l.note(n) != untried; n++ {
		t = n
		if l.note(n) == written {
			w = n
		}
	}
	return w, t
}

// event returns event n of a life, and aliveAfter the workers after it.
func event(n int) prefork.Event {
	if n%2 == 0 && n%16 != 0 {
		return prefork.ExitEvent{Exit: prefork.Exit{PID: n - 1, Ordinal: n - 1}}
	}
	return prefork.StateEvent{Worker: prefork.WorkerInfo{PID: n, Ordinal: n, State: prefork.StateReady}}
}

func aliveAfter(n int) (pids []int) {
	for i := 1; i <= n; i++ {
		if i%16 == 15 || i%16 == 0 || i == n && i%2 == 1 {
			pids = append(pids, i)
		}
	}
	return pids
}

func init() { preforktest.Register("hardship", hardship) }

// hardship writes numbered records until it is killed: rotation each 50 records,
// a clock that jumps by a day, a copytruncate each 100 records, and a full disk
// each 300. The counts go on from the second argument.
func hardship() {
	ossignal.Ignore(syscall.SIGXFSZ)
	path, ledgerName := os.Args[1], os.Args[2]
	offset, _ := strconv.Atoi(os.Args[3])
	jump := time.Duration(0)
	clock = func() time.Time { return time.Now().Add(jump) }
	notes, err := openLedger(ledgerName)
	if err != nil {
		report("error: %v", err)
		return
	}
	jump = []time.Duration{0, 24 * time.Hour, -24 * time.Hour}[offset%3]
	j, err := Open(path, Config{MaxSize: -1, MaxAge: 48 * time.Hour, KeepFiles: -1, LockTimeout: 10 * time.Second})
	if err != nil {
		report("error: %v", err)
		return
	}
	report("previous %d workers %d", j.Previous().PID, len(j.Previous().Workers))
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_FSIZE, &limit)
	unlimited := limit.Cur
	for n := 1; n < ledgerSize-notesFrom; n++ {
		at := offset + n
		if at%37 == 0 {
			jump = []time.Duration{0, 24 * time.Hour, -24 * time.Hour}[at/37%3]
		}
		if at%50 == 0 {
			if err := j.Rotate(); err != nil {
				report("error: %v", err)
			}
		}
		if at%100 == 75 {
			copyTruncate(path, fmt.Sprintf("%s.copy-%d", ledgerName, n), notes)
		}
		switch at % 300 {
		case 210: // the disk is full, but for a part of a record
			info, _ := os.Stat(path)
			setLimit(&limit.Cur, info.Size()+int64(at%7*20))
			unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
		case 214:
			limit.Cur = unlimited
			unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
		}
		notes[notesFrom+n] = tried
		if err := j.Write(Record{Event: event(n)}); err != nil {
			notes[notesFrom+n] = failed
			continue
		}
		notes[truncatedAt] = 0
		notes[notesFrom+n] = written
	}
}

// copyTruncate copies and truncates the file, as logrotate does.
func copyTruncate(path, name string, notes ledger) {
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(name+".part", content, 0o600)
	}
	notes[truncatedAt] = 1
	if err = errors.Join(err, os.Truncate(path, 0)); err == nil {
		err = os.Rename(name+".part", name)
	}
	if err != nil {
		report("error: %v", err)
	}
}

// Through SIGKILL, rotation, a clock that jumps, copytruncate and a full disk,
// every record that was written can be read once and in order, and PreviousState
// is correct.
func TestHardship(t *testing.T) {
	kills := 8
	if *long {
		kills = 1000
	}
	const each = 20 // kills in one directory
	var sum hardshipSum
	for from := 0; from < kills; from += each {
		t.Run("", func(t *testing.T) { testHardship(t, from, min(each, kills-from), &sum) })
	}
	t.Logf("%d kills: %d records written, %d failed, %d in copies, %d files, %d damaged lines, %d times killed after a truncation",
		kills, sum.written, sum.failed, sum.copied, sum.files, sum.damaged, sum.truncated)
}

type hardshipSum struct{ written, failed, copied, files, damaged, truncated int }

// A life is one process of the program hardship.
type life struct {
	pid   int
	notes ledger
}

func testHardship(t *testing.T, from, kills int, sum *hardshipSum) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.journal")
	notesDir := t.TempDir()
	var lives []life
	offset := from*1000 + 150                   // so that the first life meets each hardship
	expected := []string{describeState(0, nil)} // possible states
	ran := false                                // a process has surely had an event
	for i := range kills {
		name := filepath.Join(notesDir, strconv.Itoa(i))
		p := preforktest.Start(t, "hardship", path, name, strconv.Itoa(offset))
		got := p.Expect(`^previous (\d+) workers (\d+)$`)
		if i > 0 && !slices.ContainsFunc(expected, func(s string) bool {
			return strings.HasPrefix(s, fmt.Sprintf("%s %s:", got[1], got[2]))
		}) {
			t.Fatalf("life %d: %s, want one of %q", i, got[0], expected)
		}
		time.Sleep(time.Duration((from+i)*3370%20000) * time.Microsecond) // kill at varying moments
		p.Kill()
		p.Wait()
		for _, line := range p.Lines() {
			if strings.HasPrefix(line, "error") {
				t.Fatal(line)
			}
		}
		notes, err := openLedger(name)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(notes)
		lives = append(lives, life{p.PID(), notes})
		w, tried := notes.last()
		offset += tried
		s, err := PreviousState(path)
		if err != nil && !(errors.Is(err, ErrNoStart) && (i == 0 || notes[truncatedAt] != 0)) {
			t.Fatal(err)
		}
		if notes[truncatedAt] != 0 {
			// No process but the killed one knew the state.
			sum.truncated++
			expected = []string{describeState(s.PID, pidsOf(s))}
			continue
		}
		first := w
		if w > 0 {
			expected = nil
		} else if ran { // until its first event the one before it counts
			first = 1
		}
		ran = ran || w > 0
		for n := first; n <= tried; n++ {
			expected = append(expected, describeState(p.PID(), aliveAfter(n)))
		}
		if !slices.Contains(expected, describeState(s.PID, pidsOf(s))) {
			t.Fatalf("life %d, %d records of %d: %s, want one of %q", i, w, tried, describeState(s.PID, pidsOf(s)), expected)
		}
	}
	checkHardship(t, path, notesDir, lives, sum)
}

func pidsOf(s State) (pids []int) {
	for _, w := range s.Workers {
		pids = append(pids, w.PID)
	}
	return pids
}

func describeState(pid int, workers []int) string {
	return fmt.Sprintf("%d %d: %d", pid, len(workers), workers)
}

// checkHardship reads all records.
func checkHardship(t *testing.T, path, notesDir string, lives []life, sum *hardshipSum) {
	t.Helper()
	seen := make(map[[2]int]int)
	last := [2]int{}
	add := func(rec Record, err error) {
		var line *LineError
		switch {
		case errors.As(err, &line):
			sum.damaged++
			return
		case err != nil:
			t.Fatal(err)
		}
		n := 0
		switch e := rec.Event.(type) {
		case prefork.StateEvent:
			n = e.Worker.PID
		case prefork.ExitEvent:
			n = e.Exit.PID + 1
		default:
			return
		}
		at := slices.IndexFunc(lives, func(l life) bool { return l.pid == rec.PID })
		id := [2]int{at, n}
		if slices.Compare(last[:], id[:]) >= 0 {
			t.Errorf("record %v after %v", id, last)
		}
		last = id
		seen[id]++
	}
	for rec, err := range Read(path) {
		add(rec, err)
	}
	// An unfinished copy comes last: the next process may have copied the file
	// again.
	copies, _ := filepath.Glob(notesDir + "/*.copy-*")
	finished := func(name string) bool { return !strings.HasSuffix(name, ".part") }
	copies = append(slices.DeleteFunc(slices.Clone(copies), func(name string) bool { return !finished(name) }),
		slices.DeleteFunc(copies, finished)...)
	for _, name := range copies {
		last = [2]int{}
		content, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if !finished(name) && holdsSeen(content, lives, seen) {
			content.Close()
			continue // killed before the truncation
		}
		content.Seek(0, io.SeekStart)
		before := len(seen)
		for rec, err := range Decode(content) {
			add(rec, err)
		}
		sum.copied += len(seen) - before
		content.Close()
	}
	for i, l := range lives {
		_, tried := l.notes.last()
		for n := 1; n <= tried; n++ {
			count, note := seen[[2]int{i, n}], l.notes.note(n)
			delete(seen, [2]int{i, n})
			switch {
			case count > 1, note == written && count == 0:
				t.Errorf("record %d of life %d was read %d times, noted as %d", n, i, count, note)
			case note == written:
				sum.written++
			case note == failed:
				sum.failed++
			}
		}
	}
	if len(seen) > 0 {
		t.Errorf("%d records that were not written: %v", len(seen), seen)
	}
	names, _ := journalFiles(path)
	sum.files += len(names) + len(copies)
}

// holdsSeen reports whether a copy has a record that was read elsewhere.
func holdsSeen(content io.Reader, lives []life, seen map[[2]int]int) bool {
	for rec := range Decode(content) {
		if e, ok := rec.Event.(prefork.StateEvent); ok {
			at := slices.IndexFunc(lives, func(l life) bool { return l.pid == rec.PID })
			return seen[[2]int{at, e.Worker.PID}] > 0
		}
	}
	return false
}
