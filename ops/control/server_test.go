//go:build unix

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
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
		{"POST /v1/workers/1/kill?pool=" + web, 404, "no worker 1"},
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
}

// Neither a stopped manager nor a client that is gone leaves anything behind.
func TestNoLeaks(t *testing.T) {
	preforktest.NoLeaks(t)
	s := newTestServer(t, Config{})
	ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	conn, _ := streamOf(t, s.sock.address, "/v1/events")
	conn.Close()
	connect(t, s.sock.address, "GET / HT") // never completed
	streamOf(t, s.sock.address, "/v1/events")
	if err := s.detachOnce(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.sock.address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A client that has connected and not yet sent its request is answered when the
// server ends: after a takeover it asks again, and the successor answers.
func TestDetachAnswersUnreadRequests(t *testing.T) {
	for _, successor := range []int64{0, 42} {
		s := newTestServer(t, Config{})
		conns := []net.Conn{connect(t, s.sock.address, ""), connect(t, s.sock.address, "GET / HT")}
		ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n") // so the others are accepted
		s.successor.Store(successor)
		want := "the manager ends"
		if successor != 0 {
			want = `"successor":42`
		}
		if err := s.detachOnce(); err != nil {
			t.Error(err)
		}
		for i, conn := range conns {
			if text := readAll(conn); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.Contains(text, want) {
				t.Errorf("connection %d: %q, want %s", i, text, want)
			}
		}
	}
}

// A manager that was superseded keeps no descriptor of the socket: if the
// successor ends before it does, clients learn that no manager listens.
func TestSupersededClosesSocket(t *testing.T) {
	s := newTestServer(t, Config{})
	stream, _ := streamOf(t, s.sock.address, "/v1/events")
	s.follower(s.pools[0])(prefork.Record{Seq: 1, Event: prefork.UpgradedEvent{PID: 99}})
	preforktest.WaitFor(t, "the end of the socket", func() bool {
		conn, err := net.Dial("unix", s.sock.address)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if err := s.detachOnce(); err != nil {
		t.Error(err)
	}
	if text := readAll(stream); !strings.Contains(text, `"successor":99`) {
		t.Errorf("the stream has ended without its end: %q", text)
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
		{"POST /v1/reload", "503 superseded 99"},
		{"POST /v1/restart", "503 superseded 99"},
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
			m.store(prefork.Record{Seq: 1, Event: prefork.UpgradedEvent{PID: 99}})
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

// The 65th connection is answered at once, and the place of one that ends is free.
func TestMaxConns(t *testing.T) {
	s := newTestServer(t, Config{})
	var streams []net.Conn
	for range maxConns {
		conn, lines := streamOf(t, s.sock.address, "/v1/events")
		if !lines.Scan() {
			t.Fatal("no state")
		}
		streams = append(streams, conn)
	}
	code, body := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	if code != 503 || !strings.Contains(body, "64 connections") {
		t.Errorf("connection 65: %d %s", code, body)
	}
	streams[0].Close()
	for code = 503; code == 503; {
		code, _ = ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
	}
	if code != 200 {
		t.Errorf("after one has ended: %d", code)
	}
}

// However many connections are refused, the server goes on, and keeps none.
func TestMaxRefusals(t *testing.T) {
	s := newTestServer(t, Config{})
	var streams []net.Conn
	for range maxConns {
		conn, lines := streamOf(t, s.sock.address, "/v1/events")
		lines.Scan()
		streams = append(streams, conn)
	}
	for range 2 * maxRefusals {
		connect(t, s.sock.address, "") // sends nothing
	}
	if code, _ := ask(t, s.sock.address, "GET / HTTP/1.1\r\n\r\n"); code != 503 {
		t.Errorf("behind the others: %d", code)
	}
	for _, conn := range streams {
		conn.Close()
	}
	code := 503
	for code == 503 {
		code, _ = ask(t, s.sock.address, "GET / HTTP/1.1\r\n\r\n")
	}
	if code != 200 {
		t.Errorf("after all: %d", code)
	}
}

// A request must come within 5 seconds.
func TestSlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		began, done := time.Now(), make(chan bool)
		ours.SetReadDeadline(began.Add(ioTimeout))
		go func() {
			defer close(done)
			for _, err := io.WriteString(theirs, "GET / HTTP/1.1\r\nA: "); err == nil; _, err = theirs.Write([]byte("X")) {
				time.Sleep(time.Second)
			}
		}()
		if _, err := readRequest(ours, nil); err == nil || time.Since(began) != ioTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ours.Close()
		<-done
	})
}

// Each write has its own 5 seconds.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			var buf [1]byte
			for range 3 {
				time.Sleep(4 * time.Second)
				theirs.Read(buf[:])
			}
		}()
		w := timedWriter{ours}
		for range 3 {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := w.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != ioTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ours.Close()
	})
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

func TestStateAndEvents(t *testing.T) {
	s := newTestServer(t, Config{}, "web", "queue")
	s.emit(1, 3)
	_, lines := streamOf(t, s.sock.address, "/v1/events")
	next := func() (e client.Event) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream has ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var st client.Status
	if e := next(); e.Type != client.TypeState || json.Unmarshal(e.Data, &st) != nil || len(st.Pools) != 2 {
		t.Errorf("first: %+v", e)
	}
	for seq := range uint64(3) { // the Manager knows nothing of them, so they are new
		if e := next(); e.Seq != seq+1 {
			t.Errorf("event %+v", e)
		}
	}
	s.emit(4, 4)
	e := next()
	if want := `{"from":4,"to":5}`; e.Seq != 4 || e.Type != "resize" || e.Pool != s.pools[0].name || e.PID != os.Getpid() ||
		e.Text != "from 4 to 5 workers" || string(e.Data) != want || !e.Time.Equal(time.Unix(4, 0)) {
		t.Errorf("%+v", e)
	}
	_, lines = streamOf(t, s.sock.address, "/v1/events?since=3")
	if e := next(); e.Seq != 4 {
		t.Errorf("since 3: %+v", e)
	}
	_, all := streamOf(t, s.sock.address, "/v1/events?since=0&follow=0")
	n := 0
	for all.Scan() {
		n++
	}
	if n != 4 {
		t.Errorf("%d events in the ring", n)
	}
	_, all = streamOf(t, s.sock.address, "/v1/events?since=0&follow=0&pool="+s.pools[1].name)
	if all.Scan() {
		t.Errorf("an event of the other pool: %s", all.Text())
	}
	go s.detachOnce()
	if e := next(); e.Type != client.TypeEnd || string(e.Data) != `{"reason":"stopped"}` {
		t.Errorf("at the end: %+v", e)
	}
	if lines.Scan() {
		t.Errorf("behind the end: %s", lines.Text())
	}
}

func TestBeat(t *testing.T) {
	old := beatPeriod
	beatPeriod = time.Millisecond
	defer func() { beatPeriod = old }()
	s := newTestServer(t, Config{})
	_, lines := streamOf(t, s.sock.address, "/v1/events?since=4")
	for range 2 {
		var e client.Event
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &e) != nil || e.Type != client.TypeBeat || e.Seq != 0 {
			t.Errorf("want a beat: %s", lines.Text())
		}
	}
}

func TestEventStreamOfBrowsers(t *testing.T) {
	s := newTestServer(t, Config{})
	s.emit(1, 3)
	_, lines := streamOf(t, s.sock.address, "/v1/events?follow=0", "Accept: text/event-stream", "Last-Event-ID: 2")
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	if len(got) != 3 || got[0] != fmt.Sprintf("id: 3@%d", os.Getpid()) || !strings.HasPrefix(got[1], `data: {"seq":3,`) || got[2] != "" {
		t.Errorf("%q", got)
	}
}

// A browser that connects again with the last id gets each event of each pool once,
// and all events of a successor.
func TestEventsAfterReconnecting(t *testing.T) {
	s := newTestServer(t, Config{}, "web", "queue")
	want := []string{"web 1", "web 2", "queue 1", "web 3", "queue 2", "queue 3", "web 4"}
	for _, text := range want {
		var name string
		var seq uint64
		fmt.Sscan(text, &name, &seq)
		p := s.pools[0]
		if name == "queue" {
			p = s.pools[1]
		}
		s.follower(p)(prefork.Record{Seq: seq, Event: prefork.ResizeEvent{}})
	}
	read := func(id string) (got, ids []string) {
		_, lines := streamOf(t, s.sock.address, "/v1/events?follow=0", "Accept: text/event-stream", "Last-Event-ID: "+id)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				ids = append(ids, id)
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e client.Event
				json.Unmarshal([]byte(data), &e)
				got = append(got, fmt.Sprintf("%s %d", e.Pool, e.Seq))
			}
		}
		return got, ids
	}
	got, ids := read("0")
	if !slices.Equal(got, want) || len(ids) != len(want) {
		t.Fatalf("%q with the ids %q", got, ids)
	}
	for i, id := range ids {
		if got, _ := read(id); !slices.Equal(got, want[i+1:]) {
			t.Errorf("after %s: %q, want %q", id, got, want[i+1:])
		}
		old := id[:strings.IndexByte(id, '@')] + "@1" // of another process
		if got, _ := read(old); !slices.Equal(got, want) {
			t.Errorf("after %s: %q", old, got)
		}
	}
	for _, id := range []string{"1,2,3@7", "1,@7", "x@7", "@7"} {
		if code, body := ask(t, s.sock.address, "GET /v1/events?since="+id+" HTTP/1.1\r\n\r\n"); code != 400 {
			t.Errorf("%s: %d %s", id, code, body)
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

// A reader that the ring has overtaken gets an event of type lost.
func TestLost(t *testing.T) {
	s := newTestServer(t, Config{})
	s.emit(1, 1)
	x := &exchange{server: s.server, request: &request{}}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	x.w = timedWriter{ours}
	stream := x.newStream(s.pools)
	s.emit(2, ringSize+1)
	result := make(chan error)
	go func() {
		_, err := stream.copy()
		ours.Close()
		result <- err
	}()
	text, _ := io.ReadAll(theirs)
	if err := <-result; !errors.Is(err, errLost) || !strings.Contains(string(text), `"type":"lost"`) || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

// Readers that never read neither hold up the loop nor stay for ever.
func TestReadersThatNeverRead(t *testing.T) {
	s := newTestServer(t, Config{})
	for range maxConns {
		connect(t, s.sock.address, "GET /v1/events?since=0 HTTP/1.1\r\n\r\n")
	}
	code, body := 0, ""
	for code != 503 { // all are served
		code, body = ask(t, s.sock.address, "GET /readyz HTTP/1.1\r\n\r\n")
		if strings.Contains(body, "no worker is ready") {
			code = 0
		}
	}
	longest := time.Duration(0)
	events := testprog.Times(100000)
	for i := range events {
		began := time.Now()
		s.emit(i+1, i+1)
		longest = max(longest, time.Since(began))
	}
	t.Logf("%d events, the longest took %v to store", events, longest)
	if err := s.detachOnce(); err != nil {
		t.Error(err)
	}
}

// 1,000 streams are opened and abandoned.
func TestAbandonedStreams(t *testing.T) {
	preforktest.NoLeaks(t)
	s := newTestServer(t, Config{})
	for range testprog.Times(1000) {
		for {
			conn, lines := streamOf(t, s.sock.address, "/v1/events")
			served := lines.Scan() && strings.Contains(lines.Text(), `"type":"state"`)
			conn.Close()
			if served {
				break
			}
		}
	}
	s.detachOnce()
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

// A client that ends its sending (socat, nc -N) still gets the answer.
func TestHalfClosedClient(t *testing.T) {
	s := newTestServer(t, Config{})
	conn := connect(t, s.sock.address, "GET /v1/events HTTP/1.1\r\n\r\n").(*net.UnixConn)
	conn.CloseWrite()
	s.emit(1, 1)
	var text strings.Builder
	for !strings.Contains(text.String(), `"seq":1`) {
		var buf [4096]byte
		n, err := conn.Read(buf[:])
		if err != nil {
			t.Fatalf("%v after %s", err, text.String())
		}
		text.Write(buf[:n])
	}
}

func socketPair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: testprog.SocketDir(t) + "/p"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr))
	if err == nil {
		server, err = ln.AcceptUnix()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
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

func TestConditions(t *testing.T) {
	running := prefork.Snapshot{Generation: 2, Serving: 2, Settled: true, Pausing: true, Loop: prefork.Loop{Call: "Run"}}
	running.Workers = []prefork.WorkerInfo{{State: prefork.StateReady, Paused: true}}
	stopping := running
	stopping.Stopping, stopping.Settled = time.Now(), false
	for state, want := range map[string][3]bool{ // of running, stopping and of nothing
		"ready": {true, false, false}, "settled": {true, false, false}, "paused": {true, true, false},
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
