//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	for _, name := range []string{client.EnvSocket, "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		os.Unsetenv(name) // also for programs
	}
	preforktest.Main(m, map[string]func(){
		"prefork": main,
		"fake": func() { // serves a socket until its input ends
			f := newFake(os.Args[1])
			testprog.Print("open")
			os.Stdin.Read(make([]byte, 1))
			f.close()
		},
	})
}

// A fake is a control socket with canned answers.
type fake struct {
	socket string
	server *http.Server
	done   chan struct{}

	mu       sync.Mutex
	status   client.Status
	answers  map[string]http.HandlerFunc
	requests []string
}

func newFake(socket string) *fake {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	return newFakeOn(ln, socket)
}

func newFakeOn(ln net.Listener, socket string) *fake {
	now := time.Now()
	f := &fake{socket: socket, answers: make(map[string]http.HandlerFunc), done: make(chan struct{})}
	f.status = client.Status{API: 1, Name: "web", PID: os.Getpid(), Version: "v1.4.0", Started: now.Add(-76 * time.Hour), Now: now, Pools: []client.Pool{newPool("")}}
	f.server = &http.Server{Handler: f}
	go func() {
		defer close(f.done)
		f.server.Serve(ln)
	}()
	return f
}

// newPool returns a pool with a worker that is ready, one that stops, and a slot
// that waits.
func newPool(name string) client.Pool {
	now := time.Now()
	memory, cpu, wait, deadline := int64(1363149), 1.25, now.Add(11*time.Second), now.Add(12*time.Second)
	return client.Pool{
		Name: name, Generation: 3, Serving: 3, Settled: true, Ready: true, Call: "Run", Requests: 123456,
		Limits: client.Limits{MaxWorkers: 8}, Counts: client.Counts{Ready: 7, Busy: 3, Waiting: 1},
		Workers: []client.Worker{
			{ID: 12, Slot: 0, PID: 4711, Generation: 3, State: "ready", Started: now, Status: "R", Requests: 91, Memory: &memory, CPU: &cpu},
			{ID: 15, Slot: 3, PID: 4720, Generation: 2, State: "stopping", Started: now.Add(-76 * time.Hour), Status: "_", Requests: 880, Deadline: &deadline},
		},
		Slots: []client.Slot{{
			Slot: 2, Spawns: 4, Crashes: 3, WaitsUntil: &wait,
			LastExit: &client.Exit{ID: 9, PID: 4700, Reason: "crashed", Code: 3, At: now.Add(-time.Second)},
		}},
		Sockets: []client.Socket{{Network: "tcp", Address: "127.0.0.1:8080", Backlog: 4096}},
	}
}

func startFake(t *testing.T) *fake {
	t.Helper()
	f := newFake(filepath.Join(testprog.SocketDir(t), "web.prefork.sock"))
	t.Cleanup(f.close)
	return f
}

func (f *fake) close() {
	f.server.Close()
	<-f.done
}

// on sets the answer to a method and path.
func (f *fake) on(request string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = h
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
	h := f.answers[r.Method+" "+r.URL.Path]
	f.status.Now = time.Now()
	status, _ := json.Marshal(f.status)
	f.mu.Unlock()
	switch {
	case h != nil:
		h(w, r)
	case r.URL.Path == "/v1/status":
		w.Header().Set("Content-Length", strconv.Itoa(len(status))) // the client reads no chunks
		w.Write(status)
	case r.URL.Path == "/v1/events":
		events(line("state", json.RawMessage(status)))(w, r)
	case r.Method == "POST":
		outcome(client.Answer{Command: strings.TrimPrefix(r.URL.Path, "/v1/"), Outcome: client.Done, Text: "done it"})(w, r)
	case r.Method == "PUT":
		reply(200, client.Answer{Command: "loglevel", Outcome: client.Done, Text: "level DEBUG"})(w, r)
	default:
		reply(200, "ok")(w, r)
	}
}

// asked reports whether a request has come.
func (f *fake) asked(request string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r == request {
			return true
		}
	}
	return false
}

func reply(code int, body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		data, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(data))) // the client reads no chunks
		w.WriteHeader(code)
		w.Write(data)
	}
}

func refusal(code int, text string) http.HandlerFunc {
	return reply(code, client.Problem{Error: text})
}

func line(typ string, data any) string {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	e, err := json.Marshal(client.Event{Time: time.Now(), PID: os.Getpid(), Type: typ, Text: "the text of " + typ, Data: raw})
	if err != nil {
		panic(err)
	}
	return string(e)
}

// events answers with lines, and ends.
func events(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Transfer-Encoding", "identity") // the client reads no chunks
		for _, l := range lines {
			fmt.Fprintln(w, l)
		}
	}
}

// outcome answers a command, after events.
func outcome(a client.Answer, lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/x-ndjson" {
			reply(200, a)(w, r)
			return
		}
		a.Type = client.TypeOutcome
		last, _ := json.Marshal(a)
		events(append(lines, string(last))...)(w, r)
	}
}

// command runs the command in this process.
func command(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
	return status, out.String(), errs.String()
}

// shorten makes queries end sooner.
func shorten(t *testing.T) {
	before := queryTimeout
	queryTimeout = 100 * time.Millisecond
	t.Cleanup(func() { queryTimeout = before })
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
