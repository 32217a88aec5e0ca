//go:build unix

package manager_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

var (
	aTime   = time.Unix(7, 0).UTC()
	aWorker = prefork.WorkerInfo{
		Since: time.Unix(8, 0).UTC(), Deadline: time.Unix(9, 0).UTC(), ReadyAfter: 105 * time.Millisecond,
		Slot: 1, Generation: 2, Ordinal: 3, PID: 4, State: prefork.StateReady, Started: time.Unix(5, 6).UTC(), Paused: true, Status: prefork.StatusIdle, Requests: 7,
	}
	anExit = prefork.Exit{
		Slot: -1, Generation: 2, Ordinal: 3, PID: 4, Status: prefork.ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true},
		Reason: prefork.ReasonCrashed, Uptime: 1500 * time.Millisecond, ReadyAfter: 20 * time.Millisecond, Requests: 9,
	}
)

// jsonValues are values with their JSON, which programs outside read.
var jsonValues = []struct {
	value any
	json  string
}{
	{aWorker, `{"slot":1,"gen":2,"ordinal":3,"pid":4,"state":"ready","since":"1970-01-01T00:00:08Z","started":"1970-01-01T00:00:05.000000006Z","paused":true,"deadline":"1970-01-01T00:00:09Z","requests":7,"ready_after":"105ms","status":"_"}`},
	{prefork.WorkerInfo{State: prefork.StateStarting, Status: 200}, `{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"starting","status":"È"}`},
	{prefork.WorkerInfo{}, `{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"}`},
	{anExit, `{"slot":-1,"gen":2,"ordinal":3,"pid":4,"status":"SIGSEGV (core dumped)","reason":"crashed","requests":9,"uptime":"1.5s","ready_after":"20ms"}`},
	{prefork.SocketInfo{Network: "tcp", Address: "[::]:80", PerWorker: true}, `{"network":"tcp","address":"[::]:80","per_worker":true}`},
	{
		prefork.Snapshot{Name: "web", PID: 1, Seq: 9, Generation: 2, MaxWorkers: 3, Pausing: true, Standbys: 1, Workers: []prefork.WorkerInfo{{State: prefork.StateGone}}, Sockets: []prefork.SocketInfo{{}}},
		`{"name":"web","pid":1,"seq":9,"gen":2,"max_workers":3,"pausing":true,"standbys":1,"workers":[{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"gone"}],"sockets":[{"network":"","address":"","per_worker":false}],"slots":null,"settled":false,"serving":0,"requests":0,"loop":{"call":"","hook":""},"cpu":"0s"}`,
	},
	{
		prefork.Snapshot{
			PID: 1, Started: aTime, Settled: true, Serving: 2, Stopping: aTime, Requests: 7, CPU: 1500 * time.Millisecond, SpawnsHeldUntil: aTime,
			Change:     &prefork.Change{Kind: "upgrade", Generation: 3, Began: aTime, Replaced: 1, Of: 2, Successor: 9, Deadline: aTime},
			LastReload: &prefork.Outcome{Began: aTime, Ended: aTime, Generation: 2, Err: errors.New("no")}, LastUpgrade: &prefork.Outcome{},
			Loop:  prefork.Loop{Call: "Run", Hook: "BeforeSpawn", Since: aTime},
			Slots: []prefork.SlotInfo{{Slot: 2, Spawns: 4, WaitsUntil: aTime, Crashes: 3, LastExit: &anExit, LastExitAt: aTime}, {Held: true, Done: true}},
		},
		`{"name":"","pid":1,"seq":0,"started":"1970-01-01T00:00:07Z","gen":0,"max_workers":0,"pausing":false,"standbys":0,"workers":null,"sockets":null,` +
			`"slots":[{"slot":2,"spawns":4,"waits_until":"1970-01-01T00:00:07Z","crashes":3,"last_exit":{"slot":-1,"gen":2,"ordinal":3,"pid":4,"status":"SIGSEGV (core dumped)","reason":"crashed","requests":9,"uptime":"1.5s","ready_after":"20ms"},"last_exit_at":"1970-01-01T00:00:07Z"},{"slot":0,"spawns":0,"crashes":0,"held":true,"done":true}],` +
			`"settled":true,"serving":2,"change":{"kind":"upgrade","gen":3,"began":"1970-01-01T00:00:07Z","replaced":1,"of":2,"successor":9,"deadline":"1970-01-01T00:00:07Z"},` +
			`"last_reload":{"began":"1970-01-01T00:00:07Z","ended":"1970-01-01T00:00:07Z","gen":2,"err":"no"},"last_upgrade":{"began":"0001-01-01T00:00:00Z","ended":"0001-01-01T00:00:00Z","gen":0,"err":null},` +
			`"stopping":"1970-01-01T00:00:07Z","spawns_held_until":"1970-01-01T00:00:07Z","requests":7,"loop":{"call":"Run","hook":"BeforeSpawn","since":"1970-01-01T00:00:07Z"},"cpu":"1.5s"}`,
	},
	{prefork.ExitStatus{}, `"exit code 0"`},
	{prefork.ExitStatus{Code: 3}, `"exit code 3"`},
	{prefork.ExitStatus{Signal: syscall.SIGKILL}, `"SIGKILL"`},
	{prefork.ExitStatus{Signal: 43}, `"signal 43"`},
	{prefork.ExitStatus{Unknown: true}, `"unknown status"`},
	{map[prefork.Reason]int{prefork.ReasonOutOfMemory: 1}, `{"out of memory":1}`},
	{&prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("no")}, `{"slot":1,"gen":2,"err":"no"}`},

	{prefork.StartedEvent{}, `{"event":"started"}`},
	{prefork.GenerationEvent{Generation: 1, MaxWorkers: 2, Program: "/srv/web"}, `{"event":"generation","gen":1,"max_workers":2,"program":"/srv/web"}`},
	{prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateKilled}, From: prefork.StateReady, Reason: prefork.ReasonStuck}, `{"event":"worker","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"killed"},"from":"ready","reason":"stuck"}`},
	{prefork.ExitEvent{Exit: prefork.Exit{}, From: prefork.StateStopping}, `{"event":"exit","exit":{"slot":0,"gen":0,"ordinal":0,"pid":0,"status":"exit code 0","reason":"none","uptime":"0s"},"from":"stopping"}`},
	{prefork.LeftoverEvent{Worker: prefork.WorkerInfo{}, State: prefork.StateGone}, `{"event":"leftover","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"},"state":"gone"}`},
	{prefork.DelayEvent{Slot: 1, For: 2 * time.Second}, `{"event":"delay","slot":1,"for":"2s"}`},
	{prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("no")}, Retry: time.Second}, `{"event":"spawn-failed","err":{"slot":1,"gen":2,"err":"no"},"retry":"1s"}`},
	{prefork.SignalEvent{Received: syscall.SIGHUP, Sent: syscall.SIGTERM, Interval: time.Second, Rolling: true, Replaces: true, Origin: "ctx"}, `{"event":"signal","received":"SIGHUP","sent":"SIGTERM","interval":"1s","rolling":true,"replaces":true,"origin":"ctx"}`},
	{prefork.SignalEvent{Received: syscall.SIGUSR2}, `{"event":"signal","received":"SIGUSR2","sent":null,"interval":"0s","rolling":false,"replaces":false,"origin":""}`},
	{prefork.SignalEvent{Received: prefork.Request("reload"), Sent: syscall.SIGTERM, Replaces: true}, `{"event":"signal","received":"reload","sent":"SIGTERM","interval":"0s","rolling":false,"replaces":true,"origin":""}`},
	{prefork.ReloadEvent{Received: prefork.Request("upgrade")}, `{"event":"reload","received":"upgrade","origin":""}`},
	{prefork.DoneEvent{Slot: 3}, `{"event":"done","slot":3}`},
	{prefork.HoldEvent{Slot: 3, Held: true}, `{"event":"hold","slot":3,"held":true}`},
	{prefork.HoldEvent{}, `{"event":"hold","slot":0,"held":false}`},
	{prefork.ResizeEvent{From: 1, To: 2}, `{"event":"resize","from":1,"to":2}`},
	{prefork.ReloadEvent{Received: syscall.SIGHUP, Origin: "ctx"}, `{"event":"reload","received":"SIGHUP","origin":"ctx"}`},
	{prefork.ReloadFailedEvent{Err: errors.New("no")}, `{"event":"reload-failed","err":"no"}`},
	{prefork.ReloadFailedEvent{}, `{"event":"reload-failed","err":null}`},
	{prefork.RolledEvent{Generation: 1}, `{"event":"rolled","gen":1}`},
	{prefork.RollFailedEvent{Generation: 1, Kept: 2, Err: &prefork.SpawnError{Slot: 1, Generation: 2, Err: errors.New("no")}}, `{"event":"roll-failed","gen":1,"kept":2,"err":{"slot":1,"gen":2,"err":"no"}}`},
	{prefork.SettledEvent{Generation: 1}, `{"event":"settled","gen":1}`},
	{prefork.CrashLoopEvent{Failures: 3, Window: time.Minute}, `{"event":"crash-loop","failures":3,"window":"1m0s"}`},
	{prefork.PauseEvent{}, `{"event":"pause"}`},
	{prefork.PausedEvent{Worker: prefork.WorkerInfo{}}, `{"event":"paused","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"}}`},
	{prefork.ResumeEvent{}, `{"event":"resume"}`},
	{prefork.UpgradeEvent{PID: 9, Program: "/srv/web"}, `{"event":"upgrade","successor":9,"program":"/srv/web"}`},
	{prefork.UpgradedEvent{PID: 9}, `{"event":"upgraded","successor":9}`},
	{prefork.UpgradeFailedEvent{PID: 9, Err: errors.New("no")}, `{"event":"upgrade-failed","successor":9,"err":"no"}`},
	{prefork.NoteEvent{By: "user 1000 (pid 4711)", Text: "reload"}, `{"event":"note","by":"user 1000 (pid 4711)","text":"reload"}`},
	{prefork.EndedEvent{}, `{"event":"ended","err":null}`},
	{prefork.EndedEvent{Err: errors.New("no")}, `{"event":"ended","err":"no"}`},
}

// TestJSON checks the JSON of everything that programs may want to send or store,
// and that it can be read back.
func TestJSON(t *testing.T) {
	events := make(map[string]bool)
	for _, tt := range jsonValues {
		data, err := json.Marshal(tt.value)
		if err != nil || string(data) != tt.json {
			t.Errorf("%T: %s, %v; want %s", tt.value, data, err, tt.json)
			continue
		}
		back := reflect.New(reflect.TypeOf(tt.value))
		if err := json.Unmarshal(data, back.Interface()); err != nil {
			t.Errorf("%s: %v", data, err)
		} else if got := back.Elem().Interface(); !reflect.DeepEqual(got, tt.value) {
			t.Errorf("%s: read back as %+v, want %+v", data, got, tt.value)
		}
		if _, ok := tt.value.(prefork.Event); ok {
			events[reflect.TypeOf(tt.value).Name()] = true
		}
	}
	for s := prefork.StateNone; s <= prefork.StateGone; s++ {
		roundTrip(t, s)
	}
	for r := prefork.Reason(0); r <= prefork.ReasonOutOfMemory; r++ {
		roundTrip(t, r)
	}
	// All events, and all fields of structs.
	for _, e := range allEvents() {
		if name := reflect.TypeOf(e).Name(); !events[name] {
			t.Errorf("no example of %s", name)
		}
	}
}

func allEvents() []prefork.Event {
	return []prefork.Event{
		prefork.GenerationEvent{}, prefork.StateEvent{}, prefork.ExitEvent{}, prefork.LeftoverEvent{}, prefork.DelayEvent{}, prefork.SpawnFailedEvent{}, prefork.SignalEvent{}, prefork.ResizeEvent{},
		prefork.ReloadFailedEvent{}, prefork.RolledEvent{}, prefork.RollFailedEvent{}, prefork.CrashLoopEvent{}, prefork.PauseEvent{}, prefork.PausedEvent{}, prefork.ResumeEvent{}, prefork.UpgradeEvent{},
		prefork.UpgradedEvent{}, prefork.UpgradeFailedEvent{}, prefork.StartedEvent{}, prefork.ReloadEvent{}, prefork.SettledEvent{}, prefork.NoteEvent{}, prefork.EndedEvent{},
		prefork.DoneEvent{}, prefork.HoldEvent{},
	}
}

// TestJSONKeys checks that no field was forgotten: its key would be upper case,
// or its value lost.
func TestJSONKeys(t *testing.T) {
	upper := regexp.MustCompile(`"[A-Z][A-Za-z]*":`)
	values := []any{prefork.Snapshot{Workers: []prefork.WorkerInfo{{}}, Sockets: []prefork.SocketInfo{{}}}}
	for _, e := range allEvents() {
		values = append(values, e)
	}
	for _, v := range values {
		data, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		if upper.Match(data) {
			t.Errorf("%T has an upper-case key: %s", v, data)
		}
		if _, ok := v.(prefork.Event); ok && reflect.TypeOf(v).NumField()+1 > strings.Count(string(data), `":`)+1 {
			t.Errorf("%T has more fields than keys: %s", v, data)
		}
	}
}

func TestJSONMalformed(t *testing.T) {
	for _, tt := range []struct {
		value any
		json  string
	}{
		{new(prefork.State), `"unknown (9)"`}, {new(prefork.State), `"idle"`}, {new(prefork.State), `3`}, {new(prefork.Reason), `""`},
		{new(prefork.ExitStatus), `"exit code"`}, {new(prefork.ExitStatus), `"exit code x"`}, {new(prefork.ExitStatus), `"exit code 1 (core dumped)"`}, {new(prefork.ExitStatus), `"SIGNO"`},
		{new(prefork.WorkerInfo), `{"status":"ab"}`}, {new(prefork.WorkerInfo), `{"status":"語"}`}, {new(prefork.Exit), `{"uptime":1}`},
		{new(prefork.SignalEvent), `{"received":"HUP"}`}, {new(prefork.ReloadFailedEvent), `{"err":1}`}, {new(prefork.DelayEvent), `{"for":"soon"}`},
	} {
		if err := json.Unmarshal([]byte(tt.json), tt.value); err == nil {
			t.Errorf("%T accepts %s", tt.value, tt.json)
		}
	}
}

func roundTrip[T comparable](t *testing.T, v T) {
	t.Helper()
	data, err := json.Marshal(v)
	var back T
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil || back != v {
		t.Errorf("%s: %v, %v", data, back, err)
	}
}

// TestRlimitNames checks that New knows each constant. Its error is another one:
// the soft limit is above the hard one.
func TestRlimitNames(t *testing.T) {
	for _, name := range []string{prefork.RlimitAS, prefork.RlimitCore, prefork.RlimitCPU, prefork.RlimitData, prefork.RlimitFsize, prefork.RlimitMemlock, prefork.RlimitNofile, prefork.RlimitNproc, prefork.RlimitStack} {
		_, err := prefork.New(prefork.Config{
			Name: t.Name() + name, TrapSignals: prefork.Signals{},
			Resources: prefork.Resources{Rlimits: []prefork.Rlimit{{Resource: name, Soft: 2, Hard: 1}}},
		})
		if err == nil || strings.Contains(err.Error(), "is not one of") {
			t.Error(err)
		}
	}
}
