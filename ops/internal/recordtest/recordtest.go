//go:build unix

// Package recordtest has an example of each type of record, for tests.
package recordtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/record"
)

// Moment is the time in the examples.
var Moment = time.Date(2026, 11, 25, 7, 0, 0, 123456789, time.UTC)

// Examples returns events of all types, with all fields set in at least one. It
// fails the test if a type of package prefork or record has none. The test must
// run in a directory of ops.
func Examples(t testing.TB) []fmt.Stringer {
	t.Helper()
	worker := prefork.WorkerInfo{
		Slot: 3, Generation: 2, Ordinal: 17, PID: 4711,
		State: prefork.StateReady, Started: Moment, Status: 0xe9, Requests: 12,
	}
	spawnErr := &prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("fork: resource temporarily unavailable")}
	usage := &syscall.Rusage{Maxrss: 2048, Minflt: 3, Nvcsw: 5}
	usage.Utime, usage.Stime = syscall.NsecToTimeval(1_500_000_000), syscall.NsecToTimeval(20_000)
	events := []fmt.Stringer{
		record.Started{PID: 1}, record.Started{PID: 2, Successor: true},
		record.TookOver{State: record.State{Started: Moment, PID: 2, Workers: []record.Worker{{WorkerInfo: worker}}}},
		record.Ended{PID: 1}, record.Warning{Component: "watcher", Error: "a \"quoted\"\nerror"},
		record.Rotated{Reason: record.ReasonSize},
		record.Rotated{Reason: record.ReasonAge, State: record.State{Started: Moment, PID: 1, Ended: Moment.Add(1), Workers: []record.Worker{{WorkerInfo: worker}}}},
		record.Rotated{Reason: record.ReasonGap, State: record.State{Started: Moment, PID: 1}},
		record.Rotated{Reason: record.ReasonTruncated}, record.Rotated{Reason: record.ReasonDamaged},
		record.Rotated{Reason: record.ReasonMoved}, record.Rotated{Reason: record.ReasonRequest},
		record.MoreWorkers{Workers: []record.Worker{{WorkerInfo: worker}}},
		record.Unknown{Type: "of a later version", Data: []byte(`{"a":[1,2]}`)},
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
		prefork.DoneEvent{Slot: 3}, prefork.HoldEvent{Slot: 3, Held: true}, prefork.HoldEvent{Slot: 4},
		prefork.ReloadFailedEvent{Err: errors.New("no such file")},
		prefork.RolledEvent{Generation: 2},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: errors.New("worker 5 crashed")},
		prefork.RollFailedEvent{Generation: 3, Kept: 2, Err: spawnErr},
		prefork.CrashLoopEvent{Failures: 5, Window: time.Minute},
		prefork.PauseEvent{}, prefork.PausedEvent{Worker: prefork.WorkerInfo{PID: 7, Paused: true}}, prefork.ResumeEvent{},
		prefork.UpgradeEvent{PID: 99}, prefork.UpgradeEvent{PID: 99, Program: "/srv/app/2/server"}, prefork.UpgradedEvent{PID: 99},
		prefork.UpgradeFailedEvent{PID: 99, Err: errors.New("it ended")}, prefork.UpgradeFailedEvent{Err: errors.New("no file")},
		record.MoreWorkers{Workers: []record.Worker{{Pool: "web/log", WorkerInfo: worker}}},
		record.ProgramAdded{Service: "web", Kind: "program"}, record.ProgramChanged{Service: "web"},
		record.ProgramRemoved{Service: "web"}, record.ProgramRemoved{Service: "web", Reason: "not executable"},
		record.PassedOver{Name: "notes.txt", Reason: "not executable"},
		record.GaveUp{Service: "web/log", Reason: "finish has exited with 125"},
	}
	checkComplete(t, events)
	return events
}

// checkComplete compares the examples with the sources: the events of package
// prefork are the types with a method line, and those of package record are the
// types with a method String.
func checkComplete(t testing.TB, events []fmt.Stringer) {
	t.Helper()
	has := map[string]bool{"record.Record": true, "record.State": true} // no events
	for _, e := range events {
		has[fmt.Sprintf("%T", e)] = true
	}
	for _, p := range []struct {
		sources, prefix, method string
		atLeast                 int
	}{
		{"../../*.go", "prefork.", "line", 20},
		{"../record/*.go", "record.", "String", 9},
	} {
		names := receivers(t, p.sources, p.method)
		if len(names) < p.atLeast {
			t.Errorf("%d types with a method %s in %s, want %d or more", len(names), p.method, p.sources, p.atLeast)
		}
		for _, name := range names {
			if !has[p.prefix+name] {
				t.Errorf("%s has no example: add one in recordtest, and the type to record/types.go", p.prefix+name)
			}
		}
	}
}

// receivers returns the names of the types that have a method.
func receivers(t testing.TB, sources, method string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(sources)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == method && f.Recv != nil {
				names = append(names, fmt.Sprint(f.Recv.List[0].Type))
			}
		}
	}
	return names
}
