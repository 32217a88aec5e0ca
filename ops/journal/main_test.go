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

var long = flag.Bool("long", false, "repeat as often as is promised, not a tenth of it")

var programs = map[string]func(){"writer": writerProgram}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

var moment = time.Date(2026, 11, 25, 7, 0, 0, 123456789, time.UTC)

// examples are records of all types, with all that they can say.
func examples() []fmt.Stringer {
	worker := prefork.WorkerInfo{Slot: 3, Generation: 2, Ordinal: 17, PID: 4711, State: prefork.StateReady, Started: moment, Status: 0xe9, Requests: 12}
	spawnErr := &prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("fork: resource temporarily unavailable")}
	usage := &syscall.Rusage{Maxrss: 2048, Minflt: 3, Nvcsw: 5}
	usage.Utime, usage.Stime = syscall.NsecToTimeval(1_500_000_000), syscall.NsecToTimeval(20_000)
	return []fmt.Stringer{
		Started{PID: 1}, Started{PID: 2, Successor: true}, TookOver{State{Started: moment, PID: 2, Workers: []prefork.WorkerInfo{worker}}}, Ended{PID: 1}, Warning{"watcher", "a \"quoted\"\nerror"},
		Rotated{"size", State{}}, Rotated{"age", State{Started: moment, PID: 1, Ended: moment.Add(1), Workers: []prefork.WorkerInfo{worker}}},
		Rotated{"behind", State{Started: moment, PID: 1}},
		MoreWorkers{[]prefork.WorkerInfo{worker}},
		Unknown{"of a later version", []byte(`{"a":[1,2]}`)},
		prefork.GenerationEvent{Generation: 1, MaxWorkers: 4},
		prefork.StateEvent{Worker: worker, From: prefork.StateStarting},
		prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateKilled}, From: prefork.StateStopping, Reason: prefork.ReasonStopTimeout},
		prefork.ExitEvent{From: prefork.StateStopping, Exit: prefork.Exit{Slot: 1, Generation: 2, Ordinal: 3, PID: 4, Status: prefork.ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true}, Reason: prefork.ReasonCrashed, Uptime: 1234567891, Usage: usage}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Code: 3}, Reason: prefork.ReasonOutOfMemory}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Signal: 64}}},
		prefork.ExitEvent{Exit: prefork.Exit{Status: prefork.ExitStatus{Unknown: true}}},
		prefork.LeftoverEvent{Worker: worker, State: prefork.StateGone},
		prefork.DelayEvent{Slot: 2, For: 1500 * time.Millisecond},
		prefork.SpawnFailedEvent{Err: spawnErr, Retry: time.Second}, prefork.SpawnFailedEvent{Err: spawnErr},
		prefork.SignalEvent{Received: syscall.SIGHUP, Sent: syscall.SIGTERM, Interval: time.Second},
		prefork.SignalEvent{Received: syscall.Signal(40), Rolling: true},
		prefork.ResizeEvent{From: 1, To: 20},
		prefork.ReloadFailedEvent{Err: errors.New("no such file")},
		prefork.RolledEvent{Generation: 2},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: errors.New("worker 5 crashed")},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: spawnErr},
		prefork.CrashLoopEvent{Failures: 5, Window: time.Minute},
		prefork.PauseEvent{}, prefork.PausedEvent{Worker: prefork.WorkerInfo{PID: 7, Paused: true}}, prefork.ResumeEvent{},
		prefork.UpgradeEvent{PID: 99}, prefork.UpgradedEvent{PID: 99},
		prefork.UpgradeFailedEvent{PID: 99, Err: errors.New("it ended")}, prefork.UpgradeFailedEvent{Err: errors.New("no file")},
	}
}

// Every type that is written can be read, and says the same (C3).
func TestEveryTypeIsRead(t *testing.T) {
	seen := make(map[string]bool)
	for _, event := range examples() {
		want := Record{moment, event, 1234}
		line, err := want.line()
		if err != nil {
			t.Errorf("%T: %v", event, err)
			continue
		}
		got, err := parse(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nis read as %#v\nwant       %#v", line, got, want)
		}
		seen[strings.TrimPrefix(fmt.Sprintf("%T", event), "prefork.")] = true
	}
	for _, name := range eventTypes(t) {
		if !seen[name] {
			t.Errorf("prefork.%s has no example here, and perhaps no place in a journal", name)
		}
	}
	for _, k := range kinds {
		if len(k.name) == 0 || k.name != strings.ToLower(k.name) || strings.ContainsAny(k.name, " _") {
			t.Errorf("type %q", k.name)
		}
	}
}

// eventTypes are the types of prefork.Event, as its source has them.
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
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "event" && f.Recv != nil {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	if len(names) < 10 {
		t.Fatalf("types of events found: %v", names)
	}
	return names
}

// open opens a journal and has the test close it.
func open(t *testing.T, path string, cfg Config) *Journal {
	t.Helper()
	j, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func write(t *testing.T, sink Sink, events ...fmt.Stringer) {
	t.Helper()
	for _, e := range events {
		if err := sink.Write(Record{Time: time.Now(), Event: e}); err != nil {
			t.Fatalf("%v: %v", e, err)
		}
	}
}

// files are those of a journal, the oldest first, that which is written last.
func files(path string) ([]string, error) {
	all, err := rotated(path)
	if _, missing := os.Stat(path); missing == nil {
		all = append(all, path)
	}
	return all, err
}

// all reads a journal in both ways, which must agree, and returns its records as text and the number of lines that are none.
func all(t *testing.T, path string) (texts []string, bad int) {
	t.Helper()
	texts, bad = collect(t, Read(path))
	backward, backwardBad := collect(t, ReadBackward(path))
	slices.Reverse(backward)
	if !slices.Equal(texts, backward) || bad != backwardBad {
		t.Fatalf("forward %d bad lines and %q\nbackward %d and %q", bad, texts, backwardBad, backward)
	}
	return texts, bad
}

func collect(t *testing.T, records iter.Seq2[Record, error]) (texts []string, bad int) {
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
