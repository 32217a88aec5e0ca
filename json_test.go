//go:build unix

package prefork

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	aWorker = WorkerInfo{
		Slot: 1, Generation: 2, Ordinal: 3, PID: 4, State: StateReady, Started: time.Unix(5, 6).UTC(), Paused: true, Status: StatusIdle, Requests: 7,
	}
	anExit = Exit{
		Slot: noSlot, Generation: 2, Ordinal: 3, PID: 4, Status: ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true},
		Reason: ReasonCrashed, Uptime: 1500 * time.Millisecond,
	}
)

// jsonValues are values with their JSON, which programs outside read.
var jsonValues = []struct {
	value any
	json  string
}{
	{aWorker, `{"slot":1,"gen":2,"ordinal":3,"pid":4,"state":"ready","started":"1970-01-01T00:00:05.000000006Z","paused":true,"requests":7,"status":"_"}`},
	{WorkerInfo{State: StateStarting, Status: 200}, `{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"starting","status":"È"}`},
	{WorkerInfo{}, `{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"}`},
	{anExit, `{"slot":-1,"gen":2,"ordinal":3,"pid":4,"status":"SIGSEGV (core dumped)","reason":"crashed","uptime":"1.5s"}`},
	{SocketInfo{"tcp", "[::]:80", true}, `{"network":"tcp","address":"[::]:80","per_worker":true}`},
	{
		Snapshot{Name: "web", PID: 1, Generation: 2, MaxWorkers: 3, Pausing: true, Standbys: 1, Workers: []WorkerInfo{{State: StateGone}}, Sockets: []SocketInfo{{}}},
		`{"name":"web","pid":1,"gen":2,"max_workers":3,"pausing":true,"standbys":1,"workers":[{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"gone"}],"sockets":[{"network":"","address":"","per_worker":false}]}`,
	},
	{ExitStatus{}, `"exit code 0"`},
	{ExitStatus{Code: 3}, `"exit code 3"`},
	{ExitStatus{Signal: syscall.SIGKILL}, `"SIGKILL"`},
	{ExitStatus{Signal: 43}, `"signal 43"`},
	{ExitStatus{Unknown: true}, `"unknown status"`},
	{map[Reason]int{ReasonOutOfMemory: 1}, `{"out of memory":1}`},
	{&SpawnError{Slot: 1, Generation: 2, Err: errors.New("no")}, `{"slot":1,"gen":2,"err":"no"}`},

	{GenerationEvent{1, 2}, `{"event":"generation","gen":1,"max_workers":2}`},
	{StateEvent{WorkerInfo{State: StateKilled}, StateReady, ReasonStuck}, `{"event":"worker","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"killed"},"from":"ready","reason":"stuck"}`},
	{ExitEvent{Exit{}, StateStopping}, `{"event":"exit","exit":{"slot":0,"gen":0,"ordinal":0,"pid":0,"status":"exit code 0","reason":"none","uptime":"0s"},"from":"stopping"}`},
	{LeftoverEvent{WorkerInfo{}, StateGone}, `{"event":"leftover","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"},"state":"gone"}`},
	{DelayEvent{1, 2 * time.Second}, `{"event":"delay","slot":1,"for":"2s"}`},
	{SpawnFailedEvent{&SpawnError{1, 2, errors.New("no")}, time.Second}, `{"event":"spawn-failed","err":{"slot":1,"gen":2,"err":"no"},"retry":"1s"}`},
	{SignalEvent{syscall.SIGHUP, syscall.SIGTERM, time.Second, true}, `{"event":"signal","received":"SIGHUP","sent":"SIGTERM","interval":"1s","rolling":true}`},
	{SignalEvent{Received: syscall.SIGUSR2}, `{"event":"signal","received":"SIGUSR2","sent":null,"interval":"0s","rolling":false}`},
	{ResizeEvent{1, 2}, `{"event":"resize","from":1,"to":2}`},
	{ReloadFailedEvent{errors.New("no")}, `{"event":"reload-failed","err":"no"}`},
	{ReloadFailedEvent{}, `{"event":"reload-failed","err":null}`},
	{RolledEvent{1}, `{"event":"rolled","gen":1}`},
	{RollFailedEvent{1, 2, &SpawnError{1, 2, errors.New("no")}}, `{"event":"roll-failed","gen":1,"kept":2,"err":{"slot":1,"gen":2,"err":"no"}}`},
	{CrashLoopEvent{3, time.Minute}, `{"event":"crash-loop","failures":3,"window":"1m0s"}`},
	{PauseEvent{}, `{"event":"pause"}`},
	{PausedEvent{WorkerInfo{}}, `{"event":"paused","worker":{"slot":0,"gen":0,"ordinal":0,"pid":0,"state":"none"}}`},
	{ResumeEvent{}, `{"event":"resume"}`},
	{UpgradeEvent{9}, `{"event":"upgrade","successor":9}`},
	{UpgradedEvent{9}, `{"event":"upgraded","successor":9}`},
	{UpgradeFailedEvent{9, errors.New("no")}, `{"event":"upgrade-failed","successor":9,"err":"no"}`},
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
		if _, ok := tt.value.(Event); ok {
			events[reflect.TypeOf(tt.value).Name()] = true
		}
	}
	for s := StateNone; s <= StateGone; s++ {
		roundTrip(t, s)
	}
	for r := Reason(0); r <= ReasonOutOfMemory; r++ {
		roundTrip(t, r)
	}
	// All events, and all fields of structs.
	for _, e := range allEvents() {
		if name := reflect.TypeOf(e).Name(); !events[name] {
			t.Errorf("no example of %s", name)
		}
	}
}

func allEvents() []Event {
	return []Event{
		GenerationEvent{}, StateEvent{}, ExitEvent{}, LeftoverEvent{}, DelayEvent{}, SpawnFailedEvent{}, SignalEvent{}, ResizeEvent{},
		ReloadFailedEvent{}, RolledEvent{}, RollFailedEvent{}, CrashLoopEvent{}, PauseEvent{}, PausedEvent{}, ResumeEvent{}, UpgradeEvent{},
		UpgradedEvent{}, UpgradeFailedEvent{},
	}
}

// TestJSONKeys checks that no field was forgotten: its key would be upper case,
// or its value lost.
func TestJSONKeys(t *testing.T) {
	upper := regexp.MustCompile(`"[A-Z][A-Za-z]*":`)
	values := []any{Snapshot{Workers: []WorkerInfo{{}}, Sockets: []SocketInfo{{}}}}
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
		if _, ok := v.(Event); ok && reflect.TypeOf(v).NumField()+1 > strings.Count(string(data), `":`)+1 {
			t.Errorf("%T has more fields than keys: %s", v, data)
		}
	}
}

func TestJSONMalformed(t *testing.T) {
	for _, tt := range []struct {
		value any
		json  string
	}{
		{new(State), `"unknown (9)"`}, {new(State), `"idle"`}, {new(State), `3`}, {new(Reason), `""`},
		{new(ExitStatus), `"exit code"`}, {new(ExitStatus), `"exit code x"`}, {new(ExitStatus), `"exit code 1 (core dumped)"`}, {new(ExitStatus), `"SIGNO"`},
		{new(WorkerInfo), `{"status":"ab"}`}, {new(WorkerInfo), `{"status":"語"}`}, {new(Exit), `{"uptime":1}`},
		{new(SignalEvent), `{"received":"HUP"}`}, {new(ReloadFailedEvent), `{"err":1}`}, {new(DelayEvent), `{"for":"soon"}`},
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

// TestRlimitNames checks that New knows each constant.
func TestRlimitNames(t *testing.T) {
	for _, name := range []string{RlimitAS, RlimitCore, RlimitCPU, RlimitData, RlimitFsize, RlimitMemlock, RlimitNofile, RlimitNproc, RlimitStack} {
		_, err := Resources{Rlimits: []Rlimit{{Resource: name, Soft: 0, Hard: Unlimited}}}.check(false, false)
		if err != nil && strings.Contains(err.Error(), "is not one of") {
			t.Error(err)
		}
	}
}

// TestRunsTestsAgain checks in which processes New warns.
func TestRunsTestsAgain(t *testing.T) {
	for _, tt := range []struct {
		path string
		env  map[string]string
		want bool
	}{
		{"/tmp/go-build1/b001/site.test", nil, true},
		{"/tmp/go-build1/b001/site.test", map[string]string{"PREFORKTEST_MAIN": "1"}, false},
		{"/tmp/go-build1/b001/site.test", map[string]string{"PREFORKTEST_PROGRAM": "site"}, false},
		{"./site", nil, false},
	} {
		got := runsTestsAgain(tt.path, func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok })
		if got != tt.want {
			t.Errorf("%s with %v: %v", tt.path, tt.env, got)
		}
	}
	if runsTestsAgain(process.Args[0], os.LookupEnv) {
		t.Error("preforktest.Main runs these tests, and New warns")
	}
}
