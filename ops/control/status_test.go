//go:build unix

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// moment is when the state of the tests was taken.
var moment = time.Date(2026, 11, 28, 4, 46, 52, 600e6, time.UTC)

func exampleSnapshot() prefork.Snapshot {
	return prefork.Snapshot{
		Seq: 41, Generation: 3, Serving: 3, Settled: true, MaxWorkers: 8, Standbys: 1, Started: moment, Requests: 123456,
		Loop: prefork.Loop{Call: "Run"},
		Workers: []prefork.WorkerInfo{
			{Ordinal: 12, Slot: 0, PID: 4711, Generation: 3, State: prefork.StateReady, Since: moment, Started: moment, ReadyAfter: 105 * time.Millisecond, Status: 'R', Requests: 91},
			{Ordinal: 13, Slot: 1, PID: 4712, Generation: 3, State: prefork.StateReady, Status: '_'},
			{Ordinal: 14, Slot: 3, PID: 4713, Generation: 2, State: prefork.StateStopping, Deadline: moment, Status: 0xe9, Paused: true},
			{Ordinal: 15, Slot: -1, PID: 4714, Generation: 3, State: prefork.StateStandby, Status: '.'},
			{Ordinal: 16, Slot: 4, PID: 4715, Generation: 3, State: prefork.StateStarting, Status: '.'},
			{Ordinal: 17, Slot: 5, PID: 4716, Generation: 3, State: prefork.StateKilled, Status: '.'},
		},
		LastReload: &prefork.Outcome{Generation: 2, Began: moment, Ended: moment.Add(700 * time.Millisecond), Err: errors.New("generation 2 failed, keeping generation 1")},
		Change:     &prefork.Change{Kind: "upgrade", Generation: 4, Began: moment, Replaced: 3, Of: 8, Successor: 99, Deadline: moment},
		Slots: []prefork.SlotInfo{
			{Slot: 0, Spawns: 1},
			{Slot: 2, Spawns: 4, Crashes: 3, WaitsUntil: time.Now().Add(time.Hour), LastExitAt: moment, LastExit: &prefork.Exit{
				Ordinal: 9, PID: 4700, Reason: prefork.ReasonCrashed, Status: prefork.ExitStatus{Code: 3}, Uptime: 200 * time.Millisecond,
			}},
			{Slot: 3, Spawns: 2, WaitsUntil: moment, LastExit: &prefork.Exit{Status: prefork.ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true}}},
		},
	}
}

// The status has each field of PROTOCOL.md.
func TestStatus(t *testing.T) {
	s := newTestServer(t, Config{Name: "web"})
	m := s.fakes[0]
	m.cfg.MaxSpareWorkers = 0
	s.pools[0].cfg = prefork.Config{Standby: 1, MaxSurge: 1, StopTimeout: 30 * time.Second, Readiness: prefork.Readiness{Timeout: time.Minute}}
	m.snap = exampleSnapshot()
	tcp := prefork.SocketInfo{Network: "tcp", Address: "127.0.0.1:8080"}
	each := prefork.SocketInfo{Network: "tcp", Address: "127.0.0.1:9090", PerWorker: true}
	m.queues = []prefork.QueueInfo{{SocketInfo: tcp, Slot: -1, Waiting: 2, Backlog: 4096},
		{SocketInfo: each, Slot: 0, Waiting: 1, Backlog: 10}, {SocketInfo: each, Slot: 1, Waiting: -1, Backlog: -1}, {SocketInfo: each, Slot: 2, Waiting: 3, Backlog: 10}}
	_, body := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{"api": 1.0, "name": "web", "pid": float64(os.Getpid())} {
		if got[field] != want {
			t.Errorf("%s: %v, want %v", field, got[field], want)
		}
	}
	for _, field := range []string{"program", "version", "revision", "library", "started", "now", "args"} {
		if got[field] == nil {
			t.Errorf("no %s", field)
		}
	}
	var st client.Status
	json.Unmarshal([]byte(body), &st)
	waits := st.Pools[0].Slots[0].WaitsUntil
	if waits == nil {
		t.Fatalf("slots: %s", body)
	}
	st.Pools[0].Slots[0].WaitsUntil = &moment
	pool, _ := json.Marshal(st.Pools[0])
	want := `{"name":"","seq":41,"generation":3,"serving":3,"settled":true,"ready":true,"pausing":false,"stopping":null,"call":"Run","hook":null,` +
		`"limits":{"max_workers":8,"min_spare":0,"max_spare":0,"standby":1,"surge":1,"stop_timeout":"30s","ready_timeout":"1m0s"},` +
		`"counts":{"starting":1,"standby":1,"ready":2,"stopping":1,"killed":1,"busy":1,"waiting":1},"requests":123456,` +
		`"change":{"kind":"upgrade","generation":4,"began":"2026-11-28T04:46:52.6Z","replaced":3,"of":8,"successor":99,"deadline":"2026-11-28T04:46:52.6Z"},` +
		`"last_reload":{"outcome":"failed","generation":2,"serving":3,"at":"2026-11-28T04:46:53.3Z","seconds":0.7,"error":"generation 2 failed, keeping generation 1"},"last_upgrade":null,` +
		`"workers":[{"id":12,"slot":0,"pid":4711,"gen":3,"state":"ready","since":"2026-11-28T04:46:52.6Z","started":"2026-11-28T04:46:52.6Z","ready_after":"105ms","deadline":null,"status":"R","paused":false,"requests":91},` +
		worker(13, 1, 4712, 3, "ready", "_") + "," + strings.Replace(strings.Replace(worker(14, 3, 4713, 2, "stopping", "é"), `"deadline":null`, `"deadline":"2026-11-28T04:46:52.6Z"`, 1), `"paused":false`, `"paused":true`, 1) + "," +
		worker(15, -1, 4714, 3, "standby", ".") + "," + worker(16, 4, 4715, 3, "starting", ".") + "," + worker(17, 5, 4716, 3, "killed", ".") + `],` +
		`"slots":[{"slot":2,"spawns":4,"crashes":3,"waits_until":"2026-11-28T04:46:52.6Z","last_exit":{"id":9,"pid":4700,"reason":"crashed","code":3,"uptime":"200ms","at":"2026-11-28T04:46:52.6Z"}},` +
		`{"slot":3,"spawns":2,"crashes":0,"waits_until":null,"last_exit":{"id":0,"pid":0,"reason":"none","code":0,"signal":"SIGSEGV","core_dump":true,"uptime":"0s","at":"0001-01-01T00:00:00Z"}}],` +
		`"sockets":[{"network":"tcp","address":"127.0.0.1:8080","per_worker":false,"waiting":2,"backlog":4096},{"network":"tcp","address":"127.0.0.1:9090","per_worker":true,"waiting":4,"backlog":20}]}`
	if string(pool) != want {
		t.Errorf("got\n%s\nwant\n%s", pool, want)
	}
	if strings.Count(body, "\n") != 1 || !strings.HasSuffix(body, "\n") {
		t.Error("not one line")
	}
	_, text := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
	if !strings.HasPrefix(text, "web  pid ") || !strings.Contains(text, "\nSLOT") {
		t.Errorf("table:\n%s", text)
	}
}

func worker(id, slot, pid, gen int, state, status string) string {
	return fmt.Sprintf(`{"id":%d,"slot":%d,"pid":%d,"gen":%d,"state":"%s","since":"0001-01-01T00:00:00Z","started":"0001-01-01T00:00:00Z","ready_after":null,"deadline":null,"status":"%s","paused":false,"requests":0}`,
		id, slot, pid, gen, state, status)
}

// Clients that ask at once share one status. After a command it is a new one.
func TestStatusIsShared(t *testing.T) {
	s := newTestServer(t, Config{})
	m := s.fakes[0]
	m.asked = 0
	began := time.Now()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { s.statusOf(s.pools, false, false) })
	}
	wg.Wait()
	if most := int(time.Since(began)/sharePeriod) + 2; m.asked > most {
		t.Errorf("made %d times in %v", m.asked, time.Since(began))
	}
	s.statusOf(s.pools, false, false)
	s.forget()
	m.snap.Generation = 7
	if st, _ := s.statusOf(s.pools, false, false); st.Pools[0].Generation != 7 {
		t.Error("the status is from before the command")
	}
	s.statusOf(s.pools, false, false)
	m.change(func(snap *prefork.Snapshot) { snap.Settled, snap.Generation = true, 8 })
	ask(t, s.sock.address, "GET /v1/wait?for=settled HTTP/1.1\r\n\r\n")
	if st, _ := s.statusOf(s.pools, false, false); st.Pools[0].Generation != 8 {
		t.Error("the status is from before the wait")
	}
}

// However many clients ask and wait, a Manager gives its state, and turns its loop
// for them, once in a period. An event is not missed for that.
func TestClientsShareState(t *testing.T) {
	for _, request := range []string{
		"GET /v1/wait?for=ready", "GET /v1/wait?for=settled&timeout=20ms", "GET /readyz", "GET /healthz", "GET /v1/status", "POST /v1/workers/7/kill",
	} {
		s := newTestServer(t, Config{})
		m := s.fakes[0]
		m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 1, State: prefork.StateReady}}
		m.asked, m.pings = 0, 0
		began := time.Now()
		var clients sync.WaitGroup
		each := 8
		if strings.HasPrefix(request, "POST") { // a connection of theirs stays a while
			each = 3
		}
		for range 16 {
			clients.Go(func() {
				for range each {
					if code, body := ask(t, s.sock.address, request+" HTTP/1.1\r\n\r\n"); code == 0 || code == 503 {
						t.Errorf("%s: %d %s", request, code, body)
					}
				}
			})
		}
		clients.Wait()
		most := int(time.Since(began)/sharePeriod) + 2
		m.mu.Lock()
		if m.asked > most || m.pings > most {
			t.Errorf("%s: %d states and %d pings in %v", request, m.asked, m.pings, time.Since(began))
		}
		m.mu.Unlock()
	}
	s := newTestServer(t, Config{})
	for generation := range 5 {
		s.statusOf(s.pools, false, false)
		s.fakes[0].change(func(snap *prefork.Snapshot) { snap.Settled, snap.Serving = true, generation+1 })
		request := fmt.Sprintf("GET /v1/wait?for=reloaded%%3E%d&timeout=10s HTTP/1.1\r\n\r\n", generation)
		if code, body := ask(t, s.sock.address, request); code != 200 {
			t.Errorf("%d %s", code, body)
		}
		if st, _ := s.statusOf(s.pools, false, false); st.Pools[0].Serving != generation+1 {
			t.Error("the status is from before the wait")
		}
	}
	// A state that was true before the request is not an answer.
	s.statusOf(s.pools, false, false)
	s.fakes[0].mu.Lock()
	s.fakes[0].snap.Settled = false
	s.fakes[0].mu.Unlock()
	if code, body := ask(t, s.sock.address, "GET /v1/wait?for=settled&timeout=50ms HTTP/1.1\r\n\r\n"); code != 504 {
		t.Errorf("%d %s", code, body)
	}
	// A worker that is younger than the shared state is there.
	s.statusOf(s.pools, false, false)
	s.fakes[0].change(func(snap *prefork.Snapshot) { snap.Workers = []prefork.WorkerInfo{{Ordinal: 9}} })
	if code, body := ask(t, s.sock.address, "POST /v1/workers/9/signal?signal=USR1 HTTP/1.1\r\n\r\n"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// Probes report the reason.
func TestProbes(t *testing.T) {
	old := pingTimeout
	pingTimeout = 100 * time.Millisecond
	defer func() { pingTimeout = old }()
	s := newTestServer(t, Config{}, "web", "queue")
	web, queue := s.fakes[0], s.fakes[1]
	probe := func(path string) (int, string) {
		code, body := ask(t, s.sock.address, "GET "+path+" HTTP/1.1\r\n\r\n")
		return code, body
	}
	ready := prefork.Snapshot{Workers: []prefork.WorkerInfo{{State: prefork.StateReady}}, Loop: prefork.Loop{Call: "Run"}}
	web.snap, queue.snap = ready, ready
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := probe(path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	queue.snap.Stopping = moment
	s.forget()
	if code, body := probe("/readyz"); code != 503 || !strings.Contains(body, "pool queue: stopping") || strings.Contains(body, "web") {
		t.Errorf("stopping: %d %s", code, body)
	}
	web.snap.Loop.Hook, web.snap.Loop.Since = "BeforeSpawn", time.Now().Add(-12*time.Second)
	queue.snap.Loop.Call = ""
	for _, m := range s.fakes {
		m.mu.Lock()
		m.stuck = true
		m.mu.Unlock()
	}
	s.forget()
	for _, p := range s.pools {
		p.pinged.at = time.Time{} // as after sharePeriod
	}
	began := time.Now()
	code, body := probe("/healthz")
	if code != 503 || !strings.Contains(body, "pool web: the loop is in the hook BeforeSpawn since 1") || !strings.Contains(body, "pool queue: no blocking call") {
		t.Errorf("%d %s", code, body)
	}
	if took := time.Since(began); took < pingTimeout {
		t.Errorf("after %v", took)
	}
}

// Commands call the method that they name, and are noted with the user.
func TestCommands(t *testing.T) {
	s := newTestServer(t, Config{Path: ""}, "web")
	m := s.fakes[0]
	m.snap = prefork.Snapshot{MaxWorkers: 4, Settled: true, Workers: []prefork.WorkerInfo{{Ordinal: 12, PID: 4711}}}
	m.reload = func(context.Context, prefork.Forward) (int, error) { return 8, nil }
	m.upgrade = func(context.Context) (int, error) { return 0, errors.New("prefork: it is process 1") }
	code := 0
	command := func(target string) (a client.Answer) {
		t.Helper()
		m.mu.Lock()
		m.calls, m.notes = nil, nil
		m.mu.Unlock()
		var body string
		method := "POST"
		if strings.HasPrefix(target, "/v1/loglevel") {
			method = "PUT"
		}
		code, body = ask(t, s.sock.address, method+" "+target+" HTTP/1.1\r\n\r\n")
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return a
	}
	s.pools[0].cfg.TrapSignals[syscall.SIGHUP] = prefork.Forward{Rolling: true, Linger: time.Minute}
	for _, test := range []struct{ target, call, note string }{
		{"/v1/reload", "reload {<nil> 0s false 0s false}", "reload"},
		{"/v1/reload?how=rolling", "reload {terminated 0s true 1m0s false}", "reload how=rolling"},
		{"/v1/reload?how=plain", "reload {terminated 0s false 0s false}", "reload how=plain"},
		{"/v1/reload?how=interval=1s", "reload {terminated 1s false 0s false}", "reload how=interval=1s"},
		{"/v1/restart", "reload {terminated 0s false 0s false}", "restart"},
		{"/v1/resume", "resume", "resume"},
		{"/v1/signal?signal=TERM", "deliver terminated", "signal SIGTERM to=manager"},
		{"/v1/signal?signal=15&to=manager", "deliver terminated", "signal SIGTERM to=manager"},
		{"/v1/signal?signal=sigusr1&to=workers", "all user defined signal 1", "signal SIGUSR1 to=workers"},
		{"/v1/workers/12/signal?signal=HUP", "worker 12 hangup", "signal SIGHUP to worker 12"},
		{"/v1/loglevel?level=debug", "level DEBUG", "loglevel DEBUG"},
	} {
		a := command(test.target)
		if code != 200 || a.Outcome != client.Done || a.Text == "" || !slices.Equal(m.calls, []string{test.call}) {
			t.Errorf("%s: %d %+v, calls %q", test.target, code, a, m.calls)
		}
		if want := fmt.Sprintf("user %d (pid %d): %s", os.Geteuid(), os.Getpid(), test.note); !slices.Equal(m.notes, []string{want}) {
			t.Errorf("%s: notes %q, want %q", test.target, m.notes, want)
		}
	}
	if a := command("/v1/reload"); a.Generation != 8 || a.Command != "reload" {
		t.Errorf("reload: %+v", a)
	}
	if a := command("/v1/upgrade"); code != 409 || a.Outcome != client.Failed || a.Error != "it is process 1" {
		t.Errorf("upgrade: %d %+v", code, a)
	}
	m.reload = func(ctx context.Context, _ prefork.Forward) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	if a := command("/v1/reload?timeout=10ms"); code != 504 || a.Outcome != client.Pending {
		t.Errorf("a reload that takes longer: %d %+v", code, a)
	}
	if a := command("/v1/reload?wait=0&timeout=10ms"); code != 202 || a.Outcome != client.Pending {
		t.Errorf("without waiting: %d %+v", code, a)
	}
	settle := func() { m.change(func(s *prefork.Snapshot) { s.Settled = true }) }
	for _, test := range []struct{ query, text string }{{"6", "6 workers"}, {"%2B2", "8 workers"}, {"+2", "10 workers"}, {"-1", "9 workers"}, {"-100", "0 workers"}} {
		stop := every(time.Millisecond, settle)
		if a := command("/v1/scale?workers=" + test.query); code != 200 || a.Text != test.text {
			t.Errorf("scale %s: %d %+v", test.query, code, a)
		}
		stop()
	}
	stop := every(time.Millisecond, func() {
		m.change(func(s *prefork.Snapshot) { s.Workers = nil })
	})
	for _, verb := range []string{"stop", "kill"} {
		m.mu.Lock()
		m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 12}}
		m.mu.Unlock()
		call := map[string]string{"stop": "stop worker 12", "kill": "worker 12 killed"}[verb]
		if a := command("/v1/workers/12/" + verb); code == 404 { // gone before
			continue
		} else if code != 200 || a.Text != "worker 12 is gone" || !slices.Equal(m.calls, []string{call}) {
			t.Errorf("%s: %d %+v, calls %q", verb, code, a, m.calls)
		}
	}
	stop()
	m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 12, PID: 4711, State: prefork.StateReady}, {Ordinal: 13, State: prefork.StateReady, Paused: true}}
	m.snap.Pausing = true
	if a := command("/v1/pause?timeout=20ms"); code != 504 || a.Error != "not paused yet: worker 4711 (slot 0, id 12); a worker pauses at its next Checkpoint" {
		t.Errorf("pause: %d %+v", code, a)
	}
	m.snap.Workers[0].Paused = true
	if command("/v1/pause"); code != 200 {
		t.Errorf("pause: %d", code)
	}
	stopped := every(time.Millisecond, func() {
		m.store(prefork.Record{Seq: 1e6, Event: prefork.EndedEvent{}})
	})
	if a := command("/v1/stop"); code != 200 || a.Text != "stopped" || !slices.Equal(m.calls, []string{"shutdown"}) {
		t.Errorf("stop: %d %+v %q", code, a, m.calls)
	}
	stopped()
}

// every calls f again and again until stop is called.
func every(d time.Duration, f func()) (stop func()) {
	done, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(d):
				f()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// With Accept: application/x-ndjson the events come before the outcome.
func TestCommandWithEvents(t *testing.T) {
	s := newTestServer(t, Config{})
	m := s.fakes[0]
	s.emit(1, 5)
	m.reload = func(context.Context, prefork.Forward) (int, error) {
		s.emit(6, 7)
		return 0, errors.New("generation 9 failed, keeping generation 8: worker 4711 (slot 0) crashed: exit code 1 after 304ms")
	}
	c := dial(t, s.sock.address)
	var seqs []uint64
	a := do(t, c, client.Command{Name: "reload", Events: func(e client.Event) { seqs = append(seqs, e.Seq) }})
	if !slices.Equal(seqs, []uint64{6, 7}) {
		t.Errorf("events %v", seqs)
	}
	if a.Type != client.TypeOutcome || a.Code != 409 || a.Outcome != client.Failed || !strings.HasPrefix(a.Error, "generation 9 failed, keeping generation 8") {
		t.Errorf("%+v", a)
	}
}

// A stop is answered when the program ends, and so is whoever waits for something
// else.
func TestDetachAnswers(t *testing.T) {
	s := newTestServer(t, Config{})
	m := s.fakes[0]
	began := make(chan bool)
	m.reload = func(ctx context.Context, _ prefork.Forward) (int, error) {
		began <- true
		<-ctx.Done()
		return 0, ctx.Err()
	}
	stop := connect(t, s.sock.address, "POST /v1/stop HTTP/1.1\r\n\r\n")
	reload := connect(t, s.sock.address, "POST /v1/reload HTTP/1.1\r\n\r\n")
	wait := connect(t, s.sock.address, "GET /v1/wait?for=settled HTTP/1.1\r\n\r\n")
	<-began
	for { // until the stop has begun
		m.mu.Lock()
		n := len(m.calls)
		m.mu.Unlock()
		if n == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.detachOnce()
	for name, test := range map[string]struct {
		answer string
		want   string
	}{"stop": {readAll(stop), `"outcome":"done"`}, "reload": {readAll(reload), "the manager ends"}} {
		if !strings.Contains(test.answer, test.want) {
			t.Errorf("%s: %s", name, test.answer)
		}
	}
	if text := readAll(wait); text != "" && !strings.Contains(text, "503") { // unread
		t.Errorf("wait: %s", text)
	}
}

func TestStay(t *testing.T) {
	var failure error
	set := 0
	s := newTestServer(t, Config{Stay: func() error { set++; return failure }})
	failure = errors.New("read-only")
	code, body := ask(t, s.sock.address, "POST /v1/stop?stay=1 HTTP/1.1\r\n\r\n")
	if code != 409 || !strings.Contains(body, "read-only") || len(s.fakes[0].calls) != 0 {
		t.Errorf("%d %s", code, body)
	}
	failure = nil
	s.pools[0].ended.Store(true)
	if code, _ := ask(t, s.sock.address, "POST /v1/stop?stay=1 HTTP/1.1\r\n\r\n"); code != 200 || set != 2 {
		t.Errorf("%d, set %d times", code, set)
	}
}

// After a takeover the old manager sends clients to the successor, and its streams
// go on.
func TestSuperseded(t *testing.T) {
	s := newTestServer(t, Config{})
	_, lines := streamOf(t, s.sock.address, "/v1/events?since=0")
	late := connect(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n") // accepted, and not complete
	lateCommand := connect(t, s.sock.address, "POST /v1/pause HTTP/1.1\r\n")
	for code := 0; code != 404; {
		code, _ = ask(t, s.sock.address, "GET /x HTTP/1.1\r\n\r\n") // so the two above are accepted
	}
	store := s.follower(s.pools[0])
	store(prefork.Record{Seq: 1, Event: prefork.UpgradedEvent{PID: 99}})
	store(prefork.Record{Seq: 2, Event: prefork.ResizeEvent{}})
	late.Write([]byte("\r\n"))
	if text := readAll(late); !strings.Contains(text, " 503 ") || !strings.Contains(text, `{"error":"superseded","successor":99}`) {
		t.Errorf("a late request: %s", text)
	}
	lateCommand.Write([]byte("\r\n"))
	if text := readAll(lateCommand); !strings.Contains(text, " 503 ") || len(s.fakes[0].calls) != 0 {
		t.Errorf("a late command: %s", text)
	}
	var got []string
	for range 3 {
		lines.Scan()
		var e client.Event
		json.Unmarshal(lines.Bytes(), &e)
		got = append(got, e.Type+" "+string(e.Data))
	}
	want := []string{`upgraded {"successor":99}`, `end {"reason":"upgraded","successor":99}`, `resize {"from":0,"to":0}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s.detachOnce()
	if lines.Scan() {
		t.Errorf("a second end: %s", lines.Text())
	}
}
