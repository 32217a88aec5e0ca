//go:build unix

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// newOpenServer returns a server without pools.
func newOpenServer(t testing.TB, cfg Config) (s *server, detach func() error) {
	t.Helper()
	cfg.Path, cfg.Logger = filepath.Join(testprog.SocketDir(t), "s"), slog.New(slog.DiscardHandler)
	s = newServer(cfg, nil)
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	detach = sync.OnceValue(s.detach)
	t.Cleanup(func() { detach() })
	return s, detach
}

func newFake(name string) *fakeManager {
	return &fakeManager{cfg: prefork.Config{Name: name}}
}

// A reader reads a stream of events.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
}

// want reads an event and compares its type and its pool.
func (r reader) want(typ, pool string) (e client.Event) {
	r.t.Helper()
	if !r.lines.Scan() {
		r.t.Fatalf("the stream has ended, want %s of %q", typ, pool)
	}
	if err := json.Unmarshal(r.lines.Bytes(), &e); err != nil {
		r.t.Fatal(err)
	}
	if e.Type != typ || e.Pool != pool {
		r.t.Errorf("%s of %q, want %s of %q: %s", e.Type, e.Pool, typ, pool, r.lines.Text())
	}
	return e
}

// Pools come and go: the status has those that are there, in the order of their
// names, and a stream of events reports them, with their state before their events.
func TestPoolsComeAndGo(t *testing.T) {
	s, _ := newOpenServer(t, Config{})
	pools := func() (names []string) {
		_, body := ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n")
		var st client.Status
		if err := json.Unmarshal([]byte(body), &st); err != nil || st.Pools == nil {
			t.Errorf("%v: %s", err, body)
		}
		for _, p := range st.Pools {
			names = append(names, p.Name)
		}
		return names
	}
	stream := func(target string) reader {
		_, lines := streamOf(t, s.sock.address, target)
		r := reader{t, lines}
		r.want("state", "")
		return r
	}
	all := stream("/v1/events")
	web, db := newFake("web"), newFake("db")
	web.snap.Seq = 7
	web.early = []prefork.Record{{Seq: 8, Event: prefork.PauseEvent{}}}
	removeWeb := s.add(web)
	var p client.Pool
	if e := all.want("pool-added", "web"); json.Unmarshal(e.Data, &p) != nil || p.Seq != 7 || p.Name != "web" || e.Seq != 0 || e.Text != "pool web has come" {
		t.Errorf("%+v", e)
	}
	if e := all.want("pause", "web"); e.Seq != 8 {
		t.Errorf("%+v", e)
	}
	web.mu.Lock()
	web.snap.Seq = 8
	web.mu.Unlock()
	removeDB := s.add(db)
	all.want("pool-added", "db")
	if got := fmt.Sprint(pools()); got != "[db web]" {
		t.Error(got)
	}
	one := stream("/v1/events?pool=db")
	later := stream("/v1/events")
	web.store(prefork.Record{Seq: 9, Event: prefork.ResumeEvent{}})
	db.store(prefork.Record{Seq: 1, Event: prefork.ResumeEvent{}})
	for _, r := range []reader{all, later} {
		r.want("resume", "web")
		r.want("resume", "db")
	}
	removeWeb()
	removeWeb() // a no-op
	removeDB()
	for _, r := range []reader{all, later} {
		r.want("pool-removed", "web")
		r.want("pool-removed", "db")
	}
	one.want("resume", "db")
	one.want("pool-removed", "db")
	if got := pools(); len(got) != 0 {
		t.Error(got)
	}
	defer s.add(newFake("web"))()
	all.want("pool-added", "web")
}

// Without a pool, questions are answered and commands fail.
func TestNoPools(t *testing.T) {
	s, _ := newOpenServer(t, Config{})
	for request, want := range map[string]int{
		"GET /": 200, "GET /healthz": 200, "GET /readyz": 200, "GET /v1/status?usage=1": 200, "GET /v1/status?pool=web": 404, "GET /v1/wait?for=ready": 200,
		"GET /v1/events?follow=0": 200, "POST /v1/reload": 409, "POST /v1/pause": 409, "POST /v1/scale?workers=1": 409, "POST /v1/upgrade": 409, "POST /v1/stop": 409,
		"POST /v1/workers/1/stop": 409,
	} {
		if code, body := ask(t, s.sock.address, request+" HTTP/1.1\r\n\r\n"); code != want {
			t.Errorf("%s: %d %s, want %d", request, code, body, want)
		}
	}
}

// A browser that connects again after pools have come or gone gets the state: its
// numbers are those of other pools.
func TestPositionsOfChangedPools(t *testing.T) {
	s, _ := newOpenServer(t, Config{})
	a, b := newFake("a"), newFake("b")
	removeA := s.add(a)
	s.add(b)
	a.store(prefork.Record{Seq: 1, Event: prefork.PauseEvent{}})
	_, lines := streamOf(t, s.sock.address, "/v1/events?since=0", "Accept: text/event-stream")
	position := func() string {
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				return id
			}
		}
		return ""
	}
	id := position()
	if want := fmt.Sprintf("1,0@%d/2", os.Getpid()); id != want {
		t.Errorf("position %s, want %s", id, want)
	}
	first := func(since string, headers ...string) string {
		_, lines := streamOf(t, s.sock.address, "/v1/events?follow=0"+since, headers...)
		var e client.Event
		for lines.Scan() {
			if json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &e) == nil {
				return e.Type
			}
		}
		return "nothing"
	}
	if got := first("&since=" + id); got != "nothing" {
		t.Errorf("at the same position: %s", got)
	}
	removeA()
	c := newFake("c")
	c.snap.Seq = 4
	s.add(c)
	b.store(prefork.Record{Seq: 1, Event: prefork.ResumeEvent{}})
	id = position()
	if want := fmt.Sprintf("1,4@%d/4", os.Getpid()); id != want {
		t.Errorf("position %s, want %s", id, want)
	}
	for since, want := range map[string]string{
		"1,0@%d/2": "state", "1,0@%d": "state", "1,0": "state", "1,0@%d/4": "nothing", "0,0@%d/4": "resume", "0@%d": "resume", "1@%d": "nothing", "0@1": "resume", "1,0,5@1/2": "resume",
	} {
		since = strings.Replace(since, "%d", fmt.Sprint(os.Getpid()), 1)
		if got := first("&since=" + since); got != want {
			t.Errorf("since=%s: %s, want %s", since, got, want)
		}
	}
	if got := first("", fmt.Sprintf("Last-Event-ID: 5@%d", os.Getpid())); got != "state" {
		t.Errorf("a browser that saw one pool: %s", got)
	}
}

// Who waits for a pool, or commands it, learns that it has gone.
func TestPoolGoes(t *testing.T) {
	s, _ := newOpenServer(t, Config{})
	s.add(newFake("other"))
	for request, want := range map[string]string{
		"GET /v1/wait?for=ready&pool=web":       "404",
		"POST /v1/pause?pool=web":               "409",
		"POST /v1/scale?workers=3&pool=web":     "409",
		"POST /v1/stop?pool=web":                "200",
		"POST /v1/workers/12/stop?pool=web":     "200",
		"GET /v1/wait?for=ready&timeout=1m":     "200",
		"POST /v1/pause?timeout=1m&pool=web&x=": "409",
	} {
		m := newFake("web")
		m.snap.Workers = []prefork.WorkerInfo{{Ordinal: 12}}
		remove := s.add(m)
		if strings.Contains(request, "wait?for=ready&timeout") {
			s.pools[0].pm.(*fakeManager).snap.Workers = []prefork.WorkerInfo{{State: prefork.StateReady}}
		}
		conn := connect(t, s.sock.address, request+" HTTP/1.1\r\n\r\n")
		preforktest.WaitFor(t, "the request", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.asked > 1 || len(m.calls) > 0
		})
		remove()
		if got := readAll(conn); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
}

// A stop of a program that is not ended by its Managers.
func TestStopOfProgram(t *testing.T) {
	stops := make(chan bool, 10)
	s, detach := newOpenServer(t, Config{Stop: func() { stops <- true }})
	for range 2 { // without pools and with one
		if code, body := ask(t, s.sock.address, "POST /v1/stop?wait=0 HTTP/1.1\r\n\r\n"); code != 202 {
			t.Errorf("%d %s", code, body)
		}
		<-stops
		s.add(newFake("web"))
	}
	if code, body := ask(t, s.sock.address, "POST /v1/stop?pool=web HTTP/1.1\r\n\r\n"); code != 409 || !strings.Contains(body, "prefork sv") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(t, s.sock.address, "POST /v1/upgrade HTTP/1.1\r\n\r\n"); code != 409 || !strings.Contains(body, "cannot be upgraded") {
		t.Errorf("%d %s", code, body)
	}
	conn := connect(t, s.sock.address, "POST /v1/stop HTTP/1.1\r\n\r\n")
	<-stops
	conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer before the program ends: %d bytes, %v", n, err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	go detach()
	if got := readAll(conn); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, `"text":"stopped"`) {
		t.Error(got)
	}
}

// TestManyPools prints what the status of 200 pools costs.
func TestManyPools(t *testing.T) {
	s, _ := newOpenServer(t, Config{})
	for i := range 200 {
		m := newFake(fmt.Sprintf("service-%d", i))
		m.snap = prefork.Snapshot{
			Generation: 1, Serving: 1, Settled: true, MaxWorkers: 1, Loop: prefork.Loop{Call: "Run"},
			Workers: []prefork.WorkerInfo{{Ordinal: 1, PID: os.Getpid(), State: prefork.StateReady, Since: time.Now(), Started: time.Now()}},
		}
		s.add(m)
	}
	for _, request := range []string{"GET /v1/status", "GET /v1/status?usage=1", "GET /v1/status?pool=service-7", "GET /v1/events?follow=0", "GET /healthz"} {
		began := time.Now()
		code, body := ask(t, s.sock.address, request+" HTTP/1.1\r\n\r\n")
		if code != 200 {
			t.Errorf("%s: %d %s", request, code, body)
		}
		t.Logf("%s: %v, %d bytes", request, time.Since(began).Round(10*time.Microsecond), len(body))
	}
	_, body := ask(t, s.sock.address, "POST /v1/scale?workers=2 HTTP/1.1\r\n\r\n")
	if !strings.Contains(body, `and 190 more`) || len(body) > 400 {
		t.Errorf("%s", body)
	}
	_, body = ask(t, s.sock.address, "GET /v1/status HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
	t.Logf("as text: %d lines", strings.Count(body, "\n"))
	st, err := dial(t, s.sock.address).Status(context.Background(), client.StatusOptions{})
	if err != nil || len(st.Pools) != 200 {
		t.Errorf("%v", err)
	}
}

// The last lines of the workers of a pool.
func TestTailOfPool(t *testing.T) {
	calls := make(chan string, 10)
	s, _ := newOpenServer(t, Config{Tail: func(pool string, slot, lines int) []client.Line {
		calls <- fmt.Sprintf("%s %d %d", pool, slot, lines)
		return []client.Line{{Time: time.Unix(9, 0).UTC(), Slot: 1, PID: 7, Stream: "stderr", Line: "one"}, {Slot: 2, PID: 8, Stream: "stdout", Raw: []byte("\xff"), Continued: true}}
	}})
	defer s.add(newFake("web"))()
	for request, want := range map[string]string{
		"": "web -1 100", "?pool=web&slot=3&lines=5": "web 3 5", "?lines=0": "web -1 0",
	} {
		code, body := ask(t, s.sock.address, "GET /v1/tail"+request+" HTTP/1.1\r\n\r\n")
		lines := `"lines":[{"time":"1970-01-01T00:00:09Z","slot":1,"pid":7,"stream":"stderr","line":"one"},` +
			`{"time":"0001-01-01T00:00:00Z","slot":2,"pid":8,"stream":"stdout","line":"","raw":"/w==","continued":true}]}`
		if got := <-calls; code != 200 || got != want || !strings.Contains(body, lines) {
			t.Errorf("%s: %d %s; asked for %s, want %s", request, code, body, got, want)
		}
	}
	c := dial(t, s.sock.address)
	tail, err := c.Tail(t.Context(), client.TailOptions{Pool: "web", OneSlot: true, Lines: 2})
	if got := <-calls; err != nil || got != "web 0 2" || len(tail.Lines) != 2 || tail.Lines[0].Text() != "one" || tail.Lines[1].Text() != "\xff" {
		t.Errorf("%+v, %v, asked for %s", tail, err, got)
	}
	if _, body := ask(t, s.sock.address, "GET /v1/tail HTTP/1.1\r\nAccept: text/plain\r\n\r\n"); body != "one\n\xff\n" {
		t.Errorf("as text: %q", body)
	}
	for request, want := range map[string]int{"slot=-1": 400, "slot=x": 400, "lines=x": 400, "pool=db": 404} {
		if code, body := ask(t, s.sock.address, "GET /v1/tail?"+request+" HTTP/1.1\r\n\r\n"); code != want {
			t.Errorf("%s: %d %s", request, code, body)
		}
	}
	none, _ := newOpenServer(t, Config{})
	defer none.add(newFake("web"))()
	if code, body := ask(t, none.sock.address, "GET /v1/tail HTTP/1.1\r\n\r\n"); code != 404 || !strings.Contains(body, "keeps no lines") {
		t.Errorf("%d %s", code, body)
	}
}
