package client

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// example is a status in the form of PROTOCOL.md.
const example = `{"api":1,"name":"web","program":"server","version":"v1.4.0","revision":"3f2a9c1aaaa","library":"v0.9.0","pid":4242,
"started":"2026-11-28T04:46:52.6Z","now":"2026-12-01T08:46:52Z","args":["server"],
"pools":[{"name":"","seq":41,"generation":3,"serving":3,"settled":false,"ready":true,"pausing":false,"stopping":null,"call":"Run","hook":null,
"limits":{"max_workers":8,"min_spare":0,"max_spare":0,"standby":1,"surge":1,"stop_timeout":"30s","ready_timeout":"1m0s"},
"counts":{"starting":0,"standby":1,"ready":7,"stopping":0,"killed":0,"busy":3,"waiting":1},"requests":123456,
"change":null,"last_reload":{"outcome":"failed","generation":2,"serving":3,"at":"2026-12-01T08:34:52Z","seconds":0.7,"error":"generation 2 failed, keeping generation 1: worker 4699 (slot 0) crashed: exit code 1 after 304ms"},"last_upgrade":null,
"workers":[
{"id":12,"slot":0,"pid":4711,"gen":3,"state":"ready","since":"2026-12-01T08:46:43Z","started":"2026-12-01T08:46:43Z","ready_after":"105ms","deadline":null,"status":"R","paused":false,"requests":91,"rss":4603904,"memory":1363148,"cpu":1.25},
{"id":15,"slot":3,"pid":4720,"gen":2,"state":"stopping","since":"2026-12-01T08:46:34Z","started":"2026-11-28T04:46:52Z","ready_after":"105ms","deadline":"2026-12-01T08:47:04Z","status":"_","paused":false,"requests":880,"memory":1258291},
{"id":20,"slot":-1,"pid":4730,"gen":3,"state":"standby","since":"2026-12-01T08:46:34Z","started":"2026-12-01T08:46:52Z","ready_after":null,"deadline":null,"status":".","paused":true,"requests":0}],
"slots":[{"slot":2,"spawns":4,"crashes":3,"waits_until":"2026-12-01T08:47:03Z","last_exit":{"id":9,"pid":4700,"reason":"crashed","code":3,"uptime":"200ms","at":"2026-12-01T08:46:51Z"}},
{"slot":3,"spawns":2,"crashes":1,"waits_until":null,"last_exit":{"id":8,"pid":4701,"reason":"crashed","code":0,"signal":"SIGSEGV","core_dump":true,"uptime":"200ms","at":"2026-12-01T08:46:52Z"}},
{"slot":0,"spawns":1,"crashes":0,"waits_until":null,"last_exit":null,"held":true},{"slot":4,"spawns":0,"crashes":0,"waits_until":null,"last_exit":null,"held":true},
{"slot":5,"spawns":1,"crashes":0,"waits_until":null,"last_exit":null,"held":true,"done":true}],
"sockets":[{"network":"tcp","address":"127.0.0.1:8080","per_worker":false,"waiting":0,"backlog":4096}]}]}`

func table(t *testing.T, text string) string {
	t.Helper()
	var s Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := s.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	want := `web  pid 4242  v1.4.0 (3f2a9c1)  up 3d3h  tcp 127.0.0.1:8080 (0 of 4096 waiting)
generation 3, not settled  7 of 8 ready, 3 busy, 1 waiting  123456 requests  last reload failed 12m ago: generation 2 failed, keeping generation 1: worker 4699 (slot 0) crashed: exit code 1 after 304ms
SLOT  ID  PID   GEN  STATE               ST  REQUESTS  MEMORY  AGE
0     12  4711  3    ready               R   91        1.3M    9s
2     -   -     -    waits 11s           -   -         -       last: crashed (exit code 3) 1s ago, 3 in a row
3     15  4720  2    stopping, 12s left  _   880       1.2M    3d4h  last: crashed (SIGSEGV, core dumped) 0s ago
4     -   -     -    held                -   -         -       
5     -   -     -    done                -   -         -       
-     20  4730  3    standby, paused     .   0         -       0s
`
	if got := table(t, example); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTableOfSeveralPools(t *testing.T) {
	got := table(t, `{"name":"app","pid":7,"started":"2026-12-01T08:00:00Z","now":"2026-12-01T08:00:10Z","pools":[
		{"name":"web","generation":2,"call":"Run","settled":true,"pausing":true,"limits":{"max_workers":2},"counts":{},
		 "change":{"kind":"reload","generation":3,"replaced":1,"of":2},"sockets":[{"network":"unix","address":"/x","waiting":-1,"backlog":-1}]},
		{"name":"queue","call":"","stopping":"2026-12-01T08:00:00Z","hook":{"name":"BeforeSpawn","since":"2026-12-01T08:00:03Z"},
		 "last_upgrade":{"outcome":"failed","error":"no file","at":"2026-12-01T08:00:09Z"}}]}`)
	want := `app  pid 7  up 10s

pool "web"  unix /x
generation 2, settled, pausing  0 of 2 ready, 0 busy  0 requests  reload to generation 3: 1 of 2 replaced
SLOT  ID  PID  GEN  STATE  ST  REQUESTS  MEMORY  AGE

pool "queue"
generation 0, stopping, in the hook BeforeSpawn since 7s  0 of 0 ready, 0 busy  0 requests  last upgrade failed 1s ago: no file
SLOT  ID  PID  GEN  STATE  ST  REQUESTS  MEMORY  AGE
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Every field of the example comes back as it was.
func TestStatusRoundTrip(t *testing.T) {
	var s Status
	if err := json.Unmarshal([]byte(example), &s); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(example, "\n", "")
	if string(encoded) != want {
		t.Errorf("got\n%s\nwant\n%s", encoded, want)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 499 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m1s",
		time.Hour: "1h", 26 * time.Hour: "1d2h", 1<<63 - 1: "106751d23h", -1 << 63: "0s",
	} {
		if got := Age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1.0K", 1024: "1.0K", 10 << 10: "10K", 1363148: "1.3M", 1 << 30: "1.0G", 1<<63 - 1: "8192P", -5: "-5"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// FuzzTable shows arbitrary answers. A status has a line for each worker and no
// control characters from it.
func FuzzTable(f *testing.F) {
	for _, seed := range []string{ // short, since minimizing a long one takes the whole time
		`{"name":"a\u001b","pools":[{"workers":[{"id":1,"slot":2,"status":"\u0009","state":"x\ty","memory":99999999999}]}]}`,
		`{"pools":[{"last_reload":{"error":"a\nb","outcome":"failed"},"sockets":[{"address":"\u009b"}],"change":{"kind":"\r"}}]}`,
		`{"pools":[{"slots":[{"slot":-1,"crashes":2,"waits_until":"2026-12-01T08:47:03Z","last_exit":{"reason":"\u0007","signal":"x"}}]}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"pools":[{"workers":[{"slot":-9223372036854775808,"status":"\u001b"}],"slots":[{"waits_until":"9999-12-31T23:59:59Z"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Status
		if json.Unmarshal(data, &s) != nil {
			return
		}
		var b strings.Builder
		if err := s.WriteTable(&b); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(b.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
			t.Errorf("control characters in %q", b.String())
		}
	})
}

// Pools of one worker each, as of services, have a line each.
func TestTableOfServices(t *testing.T) {
	now := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	until := now.Add(5 * time.Second)
	one := Limits{MaxWorkers: 1}
	s := Status{Name: "watch", PID: 7, Started: now.Add(-time.Minute), Now: now, Pools: []Pool{
		{Name: "db", Limits: one, Workers: []Worker{{ID: 3, PID: 42, Generation: 1, State: "ready", Status: ".", Started: now.Add(-time.Second)}}},
		{Name: "off\n", Limits: one, Call: "Run"},
		{Name: "web", Limits: one, Slots: []Slot{{WaitsUntil: &until, Crashes: 2, LastExit: &Exit{ID: 4, Reason: "crashed", Code: 3, At: now}}}},
	}}
	var b strings.Builder
	s.WriteTable(&b)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	var got []string
	for _, l := range lines[1:] {
		got = append(got, strings.Join(strings.Fields(l), " "))
	}
	want := []string{"POOL SLOT ID PID GEN STATE ST REQUESTS MEMORY AGE", "db 0 3 42 1 ready . 0 - 1s", "off - - - - not settled - - - -"}
	if len(got) != 4 || !slices.Equal(got[:3], want) || !strings.HasPrefix(got[3], "web 0 - - - waits 5s - - - ") {
		t.Errorf("%q\nwant %q", got, want)
	}
	s.Pools[0].Limits.MaxWorkers = 2
	b.Reset()
	s.WriteTable(&b)
	if !strings.Contains(b.String(), `pool "db"`) {
		t.Error(b.String())
	}
}
