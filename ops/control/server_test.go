//go:build unix

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestRoutes(t *testing.T) {
	s := newTestServer(t, Config{}, "web", "queue")
	web := s.pools[0].name
	for _, test := range []struct {
		request string
		code    int
		body    string // a part of it
	}{
		{"GET /", 200, "/v1/reload"},
		{"GET /v1/status", 200, `"api":1`},
		{"GET /v1/status?pool=" + web, 200, `"pools":[{"name":"` + web},
		{"GET /v1/status?pool=", 404, "there are"},
		{"GET /v1/nothing", 404, "GET /"},
		{"GET /v1/status/", 404, "GET /"},
		{"GET /metrics", 404, "GET /"},
		{"POST /v1/status", 405, "is for GET"},
		{"HEAD /v1/status", 405, "is for GET"},
		{"GET /v1/reload", 405, "is for POST"},
		{"GET /v1/workers/1/kill", 405, "is for POST"},
		{"POST /v1/loglevel?level=debug", 405, "is for PUT"},
		{"PUT /v1/loglevel?level=loud", 400, "loud"},
		{"POST /v1/reload?how=slowly", 400, "slowly"},
		{"POST /v1/reload?how=interval=-1s", 400, "interval"},
		{"POST /v1/reload?timeout=soon", 400, "soon"},
		{"POST /v1/reload?timeout=-1s", 400, "timeout"},
		{"POST /v1/reload?timeout=25h", 400, "timeout"},
		{"POST /v1/reload?pool=x", 404, "there are"},
		{"POST /v1/scale?workers=1", 400, "several pools"},
		{"POST /v1/scale?workers=x&pool=" + web, 400, "not a number"},
		{"POST /v1/scale?workers=&pool=" + web, 400, "not a number"},
		{"POST /v1/scale?workers=9999999&pool=" + web, 400, "not a number"},
		{"POST /v1/signal?signal=HUPP", 400, "HUPP"},
		{"POST /v1/signal", 400, "signal="},
		{"POST /v1/signal?signal=65&to=workers", 400, "65"},
		{"POST /v1/signal?signal=0&to=workers", 400, "signal="},
		{"POST /v1/signal?signal=HUP", 400, "table"},
		{"POST /v1/signal?signal=KILL", 400, "table"},
		{"POST /v1/signal?signal=HUP&to=all", 400, "neither"},
		{"POST /v1/stop?stay=1", 400, "no service"},
		{"POST /v1/workers", 404, "ID"},
		{"POST /v1/workers/x/kill", 404, "ID"},
		{"POST /v1/workers/-1/kill", 404, "ID"},
		{"POST /v1/workers/1/kill", 400, "several pools"},
		{"POST /v1/workers/1/kill?pool=" + web, 404, "no worker with ID 1"},
		{"POST /v1/workers/1/dance?pool=" + web, 404, "dance"},
		{"POST /v1/workers/1/signal?pool=" + web, 400, "signal="},
		{"GET /v1/events?since=-1", 400, "since"},
		{"GET /v1/wait", 400, "none of"},
		{"GET /v1/wait?for=reloaded%3Ex", 400, "none of"},
		{"GET /v1/wait?for=ready&timeout=x", 400, "timeout"},
		{"GET /v1/wait?for=ready&timeout=1ms", 504, "not ready within 1ms"},
		{"GET /readyz", 503, "no worker is ready"},
		{"BREW /", 405, "is for GET"},
		{"nonsense", 400, "request line"},
	} {
		request := test.request
		if strings.Contains(request, "/") {
			request += " HTTP/1.1"
		}
		code, body := ask(t, s.sock.address, request+"\r\n\r\n")
		if code != test.code || !strings.Contains(body, test.body) || !strings.HasSuffix(body, "\n") {
			t.Errorf("%s: %d %s\nwant %d with %q", test.request, code, body, test.code, test.body)
		}
		if code >= 400 && code != 504 {
			var p client.Problem
			if json.Unmarshal([]byte(body), &p) != nil || p.Error == "" {
				t.Errorf("%s: the error is no JSON: %s", test.request, body)
			}
		}
	}
	single := newTestServer(t, Config{})
	if code, body := ask(t, single.sock.address, "GET /v1/status?pool=x HTTP/1.1\r\n\r\n"); code != 404 || !strings.Contains(body, "has one, without a name") {
		t.Errorf("a pool of a program with one: %d %s", code, body)
	}
	if got := workers(1) + ", " + workers(2); got != "1 worker, 2 workers" {
		t.Error(got)
	}
}

// A client that waits when a successor takes over is sent on to it, also in a stream
// of events. What concerns the workers of this manager goes on here.
func TestSupersededWhileWaiting(t *testing.T) {
	for _, test := range []struct{ request, want string }{
		{"GET /v1/wait?for=settled", "503 superseded 99"},
		{"GET /v1/wait?for=reloaded%3E7", "503 superseded 99"},
		{"POST /v1/scale?workers=%2B1", "503 superseded 99"},
		{"POST /v1/pause", "503 superseded 99"},
		{"POST /v1/resume", "503 superseded 99"},
		{"POST /v1/reload", "503 superseded 99"},
		{"POST /v1/restart", "503 superseded 99"},
		{"POST /v1/upgrade", "503 superseded 99"},
		{"POST /v1/workers/12/stop", "200  0"},
		{"POST /v1/stop", "200  0"},
	} {
		for _, stream := range []bool{false, true} {
			s := newTestServer(t, Config{})
			m := s.fakes[0]
			m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 12, State: prefork.StateReady}}
			m.reload = func(ctx context.Context, _ prefork.Forward) (int, error) {
				<-s.superseded
				return 0, errors.New("prefork: shutting down")
			}
			m.upgrade = func(ctx context.Context) (int, error) { // it waits for another
				m.called("upgrade")
				return m.reload(ctx, prefork.Forward{})
			}
			takeOver := func() { m.store(prefork.Record{Seq: 1, Event: prefork.UpgradedEvent{PID: 99}}) }
			m.resumed = func() {
				takeOver()
				m.change(func(snap *prefork.Snapshot) { snap.Stopping = time.Now() })
			}
			head := " HTTP/1.1\r\n\r\n"
			if stream {
				head = " HTTP/1.1\r\nAccept: application/x-ndjson\r\n\r\n"
			}
			conn := connect(t, s.sock.address, test.request+head)
			preforktest.WaitFor(t, "the request", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return m.asked > 1 || len(m.calls) > 0
			})
			takeOver()
			if strings.HasPrefix(test.want, "200") { // the last worker of the old manager is gone
				m.change(func(snap *prefork.Snapshot) { snap.Workers = nil })
				m.store(prefork.Record{Seq: 3, Event: prefork.EndedEvent{}})
			}
			text := strings.TrimSpace(readAll(conn))
			var a client.Answer
			json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &a)
			code := a.Code
			if a.Type != client.TypeOutcome {
				fmt.Sscanf(text, "HTTP/1.1 %d", &code)
			}
			if got := fmt.Sprintf("%d %s %d", code, a.Error, a.Successor); got != test.want {
				t.Errorf("%s (stream %t): %s, want %s\n%s", test.request, stream, got, test.want, text)
			}
		}
	}
}

func TestPermissions(t *testing.T) {
	p := permissions{owner: 1000, group: 2000, readers: 3000}
	for _, test := range []struct {
		peer peer
		want access
	}{
		{peer{uid: 0, known: true}, accessAll},
		{peer{uid: 1000, known: true}, accessAll},
		{peer{uid: 1001, groups: []uint32{5, 2000}, known: true}, accessAll},
		{peer{uid: 1001, groups: []uint32{3000, 2000}, known: true}, accessAll},
		{peer{uid: 1001, groups: []uint32{3000}, known: true}, accessRead},
		{peer{uid: 1001, groups: []uint32{1000, 0}, known: true}, accessNone},
		{peer{uid: ^uint32(0), known: true}, accessNone},
	} {
		if got := p.of(test.peer); got != test.want {
			t.Errorf("%+v: %d, want %d", test.peer, got, test.want)
		}
	}
	none := permissions{owner: 1000, group: -1, readers: -1}
	if got := none.of(peer{uid: 1001, groups: []uint32{0, 1, 1000, ^uint32(0)}, known: true}); got != accessNone {
		t.Errorf("without groups: %d", got)
	}
	nobody := permissions{owner: 65534, group: 65534, readers: 65534, ambiguousOwner: true, ambiguousGroup: true, ambiguousReaders: true}
	outside := peer{uid: 65534, groups: []uint32{65534}, known: true}
	if got := nobody.of(outside); got != accessNone {
		t.Errorf("a user outside the user namespace: %d", got)
	}
	if nobody.byMode = true; nobody.of(outside) != accessAll {
		t.Error("the manager's own user is refused, although the mode lets in no other")
	}
	if (permissions{owner: 65534, group: -1, readers: -1}).of(outside) != accessAll {
		t.Error("the user nobody of the first user namespace is refused")
	}
	for mode, q := range map[uint32]permissions{0o600: none, 0o660: {group: 1, readers: -1}, 0o666: {group: -1, readers: 1}} {
		if q.mode() != mode {
			t.Errorf("mode %o, want %o", q.mode(), mode)
		}
	}
}

func TestGroupID(t *testing.T) {
	for group, want := range map[string]int64{"": -1, "0": 0, "1234": 1234} {
		if got, err := groupID(group); got != want || err != nil {
			t.Errorf("%q: %d, %v", group, got, err)
		}
	}
	for _, group := range []string{"no such group", "-1", "4294967296"} {
		if got, err := groupID(group); err == nil {
			t.Errorf("%q: %d", group, got)
		}
	}
}

// A stop that makes no sense sets no flag.
func TestStayIsSetLast(t *testing.T) {
	flagged := 0
	s := newTestServer(t, Config{Stay: func() error { flagged++; return nil }}, "web", "queue")
	for _, query := range []string{"stay=1&timeout=x", "stay=1&pool=web", "stay=1&pool=x"} {
		if code, body := ask(t, s.sock.address, "POST /v1/stop?"+query+" HTTP/1.1\r\n\r\n"); code != 400 && code != 404 || flagged > 0 {
			t.Errorf("%s: %d %s, set %d times", query, code, body, flagged)
		}
	}
	if code, body := ask(t, s.sock.address, "POST /v1/stop?stay=1&wait=0 HTTP/1.1\r\n\r\n"); code != 202 || flagged != 1 {
		t.Errorf("%d %s, set %d times", code, body, flagged)
	}
}

// While the write to a reader blocks, events are stored without any wait.
func TestStoreNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeManager{cfg: prefork.Config{Logger: slog.New(slog.DiscardHandler)}}
		s := &testServer{server: newServer(Config{}, []manager{m})}
		ours, theirs := net.Pipe()
		x := &exchange{server: s.server, request: &request{}, w: timedWriter{ours}}
		s.emit(1, 1)
		copied := make(chan error)
		go func() {
			_, err := x.newStream(s.pools).copy()
			copied <- err
		}()
		synctest.Wait() // it writes
		began := time.Now()
		s.emit(2, 3*ringSize)
		if took := time.Since(began); took > 0 {
			t.Errorf("storing waited for %v", took)
		}
		theirs.Close()
		if err := <-copied; err == nil {
			t.Error("no error for a reader that is gone")
		}
		ours.Close()
	})
}

// A command whose client has left, and one that waits for nothing, go on.
func TestCommandOutlivesItsClient(t *testing.T) {
	s := newTestServer(t, Config{})
	began, goOn, ended := make(chan bool), make(chan bool), make(chan bool)
	x := exchange{server: s.server, request: &request{query: map[string][]string{"timeout": {"1m"}}}, peer: peer{uid: 7, known: true}}
	c := command{name: "x", note: "x", pools: s.pools, run: func(ctx context.Context, p *pool) (result, error) {
		began <- true
		<-goOn
		ended <- ctx.Err() == nil
		return result{}, nil
	}}
	client, server := socketPair(t)
	x.conn, x.w = server, timedWriter{server}
	left := make(chan error)
	go func() { left <- x.perform(c) }()
	<-began
	client.Close()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler returned %v", err)
	}
	goOn <- true
	if !<-ended {
		t.Error("the command was ended with its client")
	}
}

// A command that panics has failed, and the manager lives.
func TestPanic(t *testing.T) {
	s := newTestServer(t, Config{})
	s.fakes[0].reload = func(context.Context, prefork.Forward) (int, error) { panic("oops") }
	if code, body := ask(t, s.sock.address, "POST /v1/reload HTTP/1.1\r\n\r\n"); code != 409 || !strings.Contains(body, "panic: oops") {
		t.Errorf("%d %s", code, body)
	}
	s.pools[0].pm = nil // so a query panics
	if code, body := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n"); code != 0 || body != "" {
		t.Errorf("%d %s", code, body)
	}
}

// Outcomes of several pools are one.
func TestOutcomes(t *testing.T) {
	s := newTestServer(t, Config{}, "a", "b", "c")
	pending, failed := errPending{"slow"}, errors.New("prefork: broken")
	for _, test := range []struct {
		errs [3]error
		want string
		code int
	}{
		{[3]error{nil, nil, nil}, client.Done, 200},
		{[3]error{nil, pending, nil}, client.Pending, 504},
		{[3]error{pending, failed, nil}, client.Failed, 409},
		{[3]error{failed, pending, nil}, client.Failed, 409},
		{[3]error{nil, nil, context.DeadlineExceeded}, client.Failed, 409}, // an error of its own
	} {
		i := map[string]int{}
		for n, p := range s.pools {
			i[p.name] = n
		}
		a := s.runAll(context.Background(), command{name: "x", pools: s.pools, run: func(_ context.Context, p *pool) (result, error) {
			return result{generation: 3, text: "fine"}, test.errs[i[p.name]]
		}})
		if a.Outcome != test.want || codeOf(a) != test.code || len(a.Pools) != 3 || (a.Error == "") != (test.want == client.Done) {
			t.Errorf("%v: %+v", test.errs, a)
		}
		if strings.Contains(a.Error, "prefork: ") {
			t.Errorf("error %q", a.Error)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	a := s.runAll(ctx, command{name: "x", pools: s.pools[:1], run: func(ctx context.Context, _ *pool) (result, error) {
		return result{}, fmt.Errorf("waiting: %w", ctx.Err())
	}})
	if a.Outcome != client.Pending || codeOf(a) != 504 {
		t.Errorf("after its time: %+v", a)
	}
}

// What needs workers that go on fails once a shutdown has begun, also if it begins
// while the client waits. What is for the workers that are left is done.
func TestCommandsInShutdown(t *testing.T) {
	for _, test := range []struct{ request, want string }{
		{"POST /v1/pause", "409 the Manager shuts down"},
		{"POST /v1/resume", "409 the Manager shuts down"},
		{"POST /v1/scale?workers=3", "409 the Manager shuts down"},
		{"POST /v1/signal?signal=HUP", "409 the Manager shuts down, and does not act on SIGHUP"},
		{"POST /v1/signal?signal=USR2", "409 the Manager shuts down, and does not act on SIGUSR2"},
		{"POST /v1/signal?signal=TERM", "200 "},
		{"POST /v1/signal?signal=INT", "200 "},
		{"POST /v1/signal?signal=HUP&to=workers", "200 "},
		{"POST /v1/workers/12/signal?signal=USR1", "200 "},
		{"PUT /v1/loglevel?level=debug", "200 "},
	} {
		s := newTestServer(t, Config{})
		m := s.fakes[0]
		s.pools[0].cfg.TrapSignals = prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}}
		m.snap = prefork.Snapshot{Pausing: true, Stopping: time.Now(), Workers: []prefork.WorkerInfo{{Ordinal: 12, State: prefork.StateStopping}}}
		code, body := ask(t, s.sock.address, test.request+" HTTP/1.1\r\n\r\n")
		var a client.Answer
		json.Unmarshal([]byte(body), &a)
		if got := fmt.Sprintf("%d %s", code, a.Error); got != test.want {
			t.Errorf("%s: %s, want %s", test.request, got, test.want)
		}
	}
	s := newTestServer(t, Config{})
	m := s.fakes[0]
	m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 12, State: prefork.StateReady}}
	conn := connect(t, s.sock.address, "POST /v1/pause HTTP/1.1\r\n\r\n")
	preforktest.WaitFor(t, "the request", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.asked > 1
	})
	m.change(func(snap *prefork.Snapshot) {
		snap.Pausing, snap.Stopping = true, time.Now()
		// Readers have the old slice.
		snap.Workers = []prefork.WorkerInfo{{Ordinal: 12, State: prefork.StateStopping}}
	})
	if text := readAll(conn); !strings.Contains(text, "409") || !strings.Contains(text, "shuts down") {
		t.Errorf("a shutdown that begins while the workers pause: %s", text)
	}
}

func TestConditions(t *testing.T) {
	running := prefork.Snapshot{Generation: 2, Serving: 2, Settled: true, Pausing: true, Loop: prefork.Loop{Call: "Run"}}
	running.Workers = []prefork.WorkerInfo{{State: prefork.StateReady, Paused: true}}
	stopping := running
	stopping.Stopping, stopping.Settled = time.Now(), false
	for state, want := range map[string][3]bool{ // of running, stopping and of nothing
		"ready": {true, false, false}, "settled": {true, false, false}, "paused": {true, false, false},
		"running": {true, false, false}, "reloaded>1": {true, false, false}, "reloaded>2": {false, false, false},
	} {
		holds, err := condition(state)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{holds(running), holds(stopping), holds(prefork.Snapshot{})}; got != want {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}
