//go:build unix

package journal

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "run the number of repetitions that the documents state, not a tenth")

var programs = map[string]func(){"writer": writerProgram}

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // a journal refuses a directory that a group can write to
	preforktest.Main(m, programs)
}

// report prints a line for the test to expect.
func report(format string, args ...any) { fmt.Printf(format+"\n", args...) }

var moment = time.Date(2026, 11, 25, 7, 0, 0, 123456789, time.UTC)

// examples returns events of all types, with all fields set in at least one.
func examples() []fmt.Stringer {
	worker := prefork.WorkerInfo{
		Slot: 3, Generation: 2, Ordinal: 17, PID: 4711,
		State: prefork.StateReady, Started: moment, Status: 0xe9, Requests: 12,
	}
	spawnErr := &prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("fork: resource temporarily unavailable")}
	usage := &syscall.Rusage{Maxrss: 2048, Minflt: 3, Nvcsw: 5}
	usage.Utime, usage.Stime = syscall.NsecToTimeval(1_500_000_000), syscall.NsecToTimeval(20_000)
	return []fmt.Stringer{
		Started{PID: 1}, Started{PID: 2, Successor: true},
		TookOver{State{Started: moment, PID: 2, Workers: []prefork.WorkerInfo{worker}}},
		Ended{PID: 1}, Warning{"watcher", "a \"quoted\"\nerror"},
		Rotated{"size", State{}},
		Rotated{"age", State{Started: moment, PID: 1, Ended: moment.Add(1), Workers: []prefork.WorkerInfo{worker}}},
		Rotated{"gap", State{Started: moment, PID: 1}}, Rotated{"truncated", State{}}, Rotated{"damaged", State{}},
		MoreWorkers{[]prefork.WorkerInfo{worker}},
		Unknown{"of a later version", []byte(`{"a":[1,2]}`)},
		prefork.GenerationEvent{Generation: 1, MaxWorkers: 4}, prefork.GenerationEvent{Generation: 2, Program: "/srv/app/2/server"},
		prefork.StateEvent{Worker: worker, From: prefork.StateStarting},
		prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateKilled}, From: prefork.StateStopping, Reason: prefork.ReasonStopTimeout},
		prefork.ExitEvent{From: prefork.StateStopping, Exit: prefork.Exit{
			Slot: 1, Generation: 2, Ordinal: 3, PID: 4,
			Status: prefork.ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true},
			Reason: prefork.ReasonCrashed, Uptime: 1234567891, Usage: usage,
		}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Code: 3}, Reason: prefork.ReasonOutOfMemory}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Signal: 64}}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Unknown: true}}},
		prefork.LeftoverEvent{Worker: worker, State: prefork.StateGone},
		prefork.DelayEvent{Slot: 2, For: 1500 * time.Millisecond},
		prefork.SpawnFailedEvent{Err: spawnErr, Retry: time.Second}, prefork.SpawnFailedEvent{Err: spawnErr},
		prefork.SignalEvent{Received: syscall.SIGHUP, Sent: syscall.SIGTERM, Interval: time.Second},
		prefork.SignalEvent{Received: syscall.Signal(40), Rolling: true, Origin: "the context of Run has ended"},
		prefork.SignalEvent{Received: syscall.Signal(40), Rolling: true, Replaces: true},
		prefork.StartedEvent{}, prefork.EndedEvent{}, prefork.EndedEvent{Err: errors.New("crash loop")},
		prefork.SettledEvent{Generation: 2}, prefork.NoteEvent{By: "user 1000 (pid 4711)", Text: "reload"},
		prefork.SignalEvent{Received: prefork.Request("reload"), Sent: syscall.SIGTERM}, prefork.ReloadEvent{Received: prefork.Request("reload")},
		prefork.SignalEvent{Received: prefork.Request("upgrade")},
		prefork.ReloadEvent{Received: syscall.SIGHUP, Origin: "Deliver"},
		prefork.ResizeEvent{From: 1, To: 20},
		prefork.ReloadFailedEvent{Err: errors.New("no such file")},
		prefork.RolledEvent{Generation: 2},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: errors.New("worker 5 crashed")},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: spawnErr},
		prefork.CrashLoopEvent{Failures: 5, Window: time.Minute},
		prefork.PauseEvent{}, prefork.PausedEvent{Worker: prefork.WorkerInfo{PID: 7, Paused: true}}, prefork.ResumeEvent{},
		prefork.UpgradeEvent{PID: 99}, prefork.UpgradeEvent{PID: 99, Program: "/srv/app/2/server"}, prefork.UpgradedEvent{PID: 99},
		prefork.UpgradeFailedEvent{PID: 99, Err: errors.New("it ended")}, prefork.UpgradeFailedEvent{Err: errors.New("no file")},
	}
}

// Every type of record is read as it was written (C3).
func TestEveryTypeIsRead(t *testing.T) {
	seen := make(map[string]bool)
	for _, event := range examples() {
		want := Record{moment, event, 1234}
		line, err := want.line()
		if err != nil {
			t.Errorf("%T: %v", event, err)
			continue
		}
		got, err := parseLine(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nread %#v\nwant %#v", line, got, want)
		}
		seen[strings.TrimPrefix(fmt.Sprintf("%T", event), "prefork.")] = true
	}
	for _, name := range eventTypes(t) {
		if !seen[name] {
			t.Errorf("prefork.%s has no example: add it here, and to recordTypes if necessary", name)
		}
	}
	for _, typ := range recordTypes {
		if typ.name == "" || typ.name != strings.ToLower(typ.name) || strings.ContainsAny(typ.name, " _") {
			t.Errorf("invalid name of a type: %q", typ.name)
		}
	}
}

// eventTypes returns the names of the types that implement prefork.Event, from
// the source of the package.
func eventTypes(t *testing.T) (names []string) {
	t.Helper()
	sources, err := filepath.Glob("../../*.go")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources:", err)
	}
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "line" && f.Recv != nil {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	if len(names) < 10 {
		t.Fatalf("too few event types found: %v", names)
	}
	return names
}

// openJournal opens a journal, which is closed at the end of the test.
func openJournal(t *testing.T, path string, cfg Config) *Journal {
	t.Helper()
	j, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func writeEvents(t *testing.T, sink Sink, events ...fmt.Stringer) {
	t.Helper()
	for _, e := range events {
		if err := sink.Write(Record{Time: time.Now(), Event: e}); err != nil {
			t.Fatalf("%v: %v", e, err)
		}
	}
}

// rotatedFiles returns the names of the rotated files of a journal, oldest first.
func rotatedFiles(path string) (names []string, err error) {
	d, err := openFolderToRead(path)
	if err != nil {
		return nil, err
	}
	defer d.close()
	files, err := d.rotatedFiles()
	for _, f := range files {
		names = append(names, filepath.Join(filepath.Dir(path), f.name))
	}
	return names, err
}

// journalFiles returns the names of all files of a journal, oldest first.
func journalFiles(path string) ([]string, error) {
	names, err := rotatedFiles(path)
	if _, missing := os.Stat(path); missing == nil {
		names = append(names, path)
	}
	return names, err
}

// readAll reads a journal in both directions, which must agree. It returns the
// texts of the records and the number of damaged lines.
func readAll(t *testing.T, path string) (texts []string, bad int) {
	t.Helper()
	texts, bad = readRecords(t, Read(path))
	backward, backwardBad := readRecords(t, ReadBackward(path))
	slices.Reverse(backward)
	if !slices.Equal(texts, backward) || bad != backwardBad {
		t.Fatalf("forward  %d damaged lines, %q\nbackward %d damaged lines, %q", bad, texts, backwardBad, backward)
	}
	return texts, bad
}

func readRecords(t *testing.T, records iter.Seq2[Record, error]) (texts []string, bad int) {
	t.Helper()
	for rec, err := range records {
		var line *LineError
		switch {
		case errors.As(err, &line):
			bad++
		case err != nil:
			t.Fatal(err)
		default:
			texts = append(texts, rec.Event.String())
		}
	}
	return texts, bad
}
