//go:build unix

package record

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

var moment = time.Date(2026, 11, 25, 7, 0, 0, 123456789, time.UTC)

// examples are events of all types.
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
		Rotated{"gap", State{Started: moment, PID: 1}},
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
		prefork.SignalEvent{Received: syscall.Signal(40), Rolling: true},
		prefork.SignalEvent{Received: syscall.SIGHUP, Replaces: true, Origin: "Manager.Deliver was called"},
		prefork.ReloadEvent{Received: syscall.SIGHUP, Origin: "x"}, prefork.SettledEvent{Generation: 4},
		prefork.NoteEvent{By: "user 7", Text: "reload"}, prefork.NoteEvent{Text: "x"},
		prefork.StartedEvent{}, prefork.EndedEvent{}, prefork.EndedEvent{Err: errors.New("crash loop")},
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

// Every type is decoded as it was encoded.
func TestEveryTypeIsRead(t *testing.T) {
	seen := make(map[string]bool)
	for _, event := range examples() {
		want := Record{moment, event, 1234}
		line, err := want.Line()
		if err != nil {
			t.Errorf("%T: %v", event, err)
			continue
		}
		got, err := Parse(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %#v\nwant %#v", line, got, want)
		}
		name, data, err := Encode(event)
		if _, unknown := event.(Unknown); !unknown && (err != nil || !bytes.Contains(line, data)) {
			t.Errorf("Encode(%T) = %s, %v; want a part of %s", event, data, err, line)
		}
		seen[name] = true
	}
	for _, typ := range recordTypes {
		if !seen[typ.name] {
			t.Errorf("no example of %s", typ.name)
		}
	}
}

// Every event of the library has a type. Its events are the types with a method
// line.
func TestEveryEventHasAType(t *testing.T) {
	known := make(map[string]bool)
	for _, e := range examples() {
		known[fmt.Sprintf("%T", e)] = true
	}
	files, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Name.Name != "line" || f.Recv == nil {
				continue
			}
			n++
			if name := fmt.Sprint(f.Recv.List[0].Type); !known["prefork."+name] {
				t.Errorf("%s cannot be encoded, or has no example", name)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d events were found", n)
	}
}

func TestOtherTypes(t *testing.T) {
	if _, _, err := Encode(bytes.NewBufferString("x")); err == nil || !strings.Contains(err.Error(), "*bytes.Buffer") {
		t.Errorf("a type of another package: %v", err)
	}
	e, err := Decode("later", []byte(`{ "a": 1 }`))
	if u, ok := e.(Unknown); err != nil || !ok || u.Type != "later" || string(u.Data) != `{"a":1}` {
		t.Errorf("a later type: %v, %v", e, err)
	}
	if e, err := Decode("exit", []byte(`{"slot":"x"}`)); err == nil {
		t.Errorf("wrong content: %v", e)
	}
	if e, err := Decode("later", []byte(`{`)); err == nil {
		t.Errorf("no JSON: %v", e)
	}
}
