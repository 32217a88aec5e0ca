//go:build unix

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

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

// Readers that never read do not stay for ever.
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
	s.emit(1, testprog.Times(10000))
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
