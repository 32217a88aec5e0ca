//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// Only Linux reports these.
const (
	reportsPIDs = runtime.GOOS == "linux"
	hasUsage    = runtime.GOOS == "linux"

	reportsQueues = runtime.GOOS == "linux"
)

func init() { preforktest.Register("asker", asker) }

// asker sends the requests of its arguments to the socket of the first, and reports
// the status codes.
func asker() {
	for _, request := range os.Args[2:] {
		conn, err := net.Dial("unix", os.Args[1])
		if err != nil {
			fmt.Printf("%s: %v\n", request, errors.Is(err, os.ErrPermission))
			continue
		}
		io.WriteString(conn, request+" HTTP/1.1\r\n\r\n")
		text, _ := io.ReadAll(conn)
		conn.Close()
		head, body, _ := strings.Cut(string(text), "\r\n\r\n")
		fmt.Printf("%s: %.3s %s\n", request, strings.TrimPrefix(head, "HTTP/1.1 "), strings.ReplaceAll(body, "\n", ""))
	}
}

func TestProgram(t *testing.T) {
	p, c := startPool(t)
	await(t, c, "ready")
	if c.Peer().PID != p.PID() && reportsPIDs {
		t.Errorf("the peer is %+v, and the manager %d", c.Peer(), p.PID())
	}
	st, err := c.Status(context.Background(), client.StatusOptions{Usage: true})
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != p.PID() || len(st.Pools) != 1 || st.Pools[0].Call != "Run" && st.Pools[0].Call != "" {
		t.Errorf("%+v", st)
	}
	await(t, c, "settled")
	st, err = c.Status(context.Background(), client.StatusOptions{Usage: true})
	if err != nil {
		t.Fatal(err)
	}
	pool := st.Pools[0]
	if pool.Counts.Ready != 2 || !pool.Ready || !pool.Settled || pool.Generation != 1 || pool.Serving != 1 || len(pool.Workers) != 2 || pool.Call != "Run" {
		t.Errorf("%+v", pool)
	}
	for _, w := range pool.Workers {
		if hasUsage && (w.RSS == nil || *w.RSS < 1<<20 || w.Memory == nil || *w.Memory <= 0 || *w.Memory > *w.RSS || w.CPU == nil) {
			t.Errorf("usage of %+v", w)
		}
		if w.Started.IsZero() || w.Since.IsZero() || w.ReadyAfter == nil || w.State != "ready" {
			t.Errorf("%+v", w)
		}
	}
	if a := do(t, c, client.Command{Name: "stop"}); a.Outcome != client.Done {
		t.Errorf("stop: %+v", a)
	}
	p.Expect("returned")
	testprog.ExpectSuccess(t, p)
	if _, err := os.Lstat(c.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := client.Dial(c.Socket()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
}

// Status has the accept queues, and a level reaches the workers.
func TestQueuesAndLogLevel(t *testing.T) {
	p, c := startPool(t, "listen")
	address := p.Expect(`^listens on (.*)$`)[1]
	await(t, c, "ready")
	for range 2 { // which no worker accepts
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	pool := status(t, c).Pools[0]
	if len(pool.Sockets) != 1 {
		t.Fatalf("%+v", pool.Sockets)
	}
	waiting, backlog := 2, 1
	if !reportsQueues {
		waiting, backlog = -1, -1
	}
	if s := pool.Sockets[0]; s.Address != address || s.Waiting != waiting || s.Backlog < backlog {
		t.Errorf("%+v, want %d waiting", s, waiting)
	}
	if a := do(t, c, client.Command{Name: "loglevel", Query: url.Values{"level": {"debug"}}}); a.Outcome != client.Done {
		t.Errorf("%+v", a)
	}
	p.ExpectAll(`^worker 1 logs all$`, `^worker 2 logs all$`)
}

// A killed manager leaves a dead socket, whose place the next one takes.
func TestKilledManager(t *testing.T) {
	p, c := startPool(t)
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if _, err := client.Dial(c.Socket()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("a dead socket: %v", err)
	}
	next := preforktest.Start(t, "pool", c.Socket())
	next.Expect("open")
	if st := status(t, dial(t, c.Socket())); st.PID != next.PID() {
		t.Errorf("%d answers, and %d was started", st.PID, next.PID())
	}
}

// A suspended manager does not answer, and the kernel reports its pid.
func TestSuspendedManager(t *testing.T) {
	p, c := startPool(t)
	thaw := preforktest.Freeze(t, p.PID())
	defer thaw()
	frozen := dial(t, c.Socket())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := frozen.Status(ctx, client.StatusOptions{}); !errors.Is(err, client.ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	if reportsPIDs && frozen.Peer().PID != p.PID() {
		t.Errorf("peer %+v, manager %d", frozen.Peer(), p.PID())
	}
}

// Another user is refused by the mode of the socket or by the credentials, and a
// reader's commands are.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "needs root, to be another user")
	}
	const uid, gid = 64123, 64124
	for _, test := range []struct {
		group, readers string
		groups         []uint32
		get, post      string
	}{
		{"", "", nil, "true", "true"}, // refused by the mode
		{"64200", "", nil, "true", "true"},
		{"64200", "", []uint32{64200}, "200 ", "200 "},
		{"", "64201", []uint32{64201}, "200 ", "403 "},
		{"", "64201", nil, "403 ", "403 "}, // though the mode lets it in
		{"64200", "64201", []uint32{64200}, "200 ", "200 "},
	} {
		// The server is in this process, of root: a manager and its workers would
		// add nothing.
		socket := newSocketPath(t)
		if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
			t.Fatal(err)
		}
		newTestServer(t, Config{Path: socket, Group: test.group, Readers: test.readers})
		other := preforktest.New(t, "asker", socket, "GET /v1/status", "POST /v1/resume")
		other.Cmd.Dir = "/"
		other.Cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: test.groups}}
		exe, err := os.Open(other.Cmd.Path) // the test binary is in a directory of root's
		if err != nil {
			t.Fatal(err)
		}
		defer exe.Close()
		other.Cmd.ExtraFiles = []*os.File{exe}
		other.Cmd.Path = "/proc/self/fd/3"
		other.Start()
		if line, want := other.NextLine(), "GET /v1/status: "+test.get; !strings.HasPrefix(line, want) {
			t.Errorf("%+v: %s", test, line)
		}
		if line, want := other.NextLine(), "POST /v1/resume: "+test.post; !strings.HasPrefix(line, want) {
			t.Errorf("%+v: %s", test, line)
		}
	}
}

// A hook that blocks leaves the status available, and /healthz names it.
func TestBlockedHook(t *testing.T) {
	p, c := startPool(t, "impatient")
	await(t, c, "settled")
	hook := beside(c, "hook")
	touch(t, hook)
	defer os.Remove(hook)
	if a := do(t, c, client.Command{Name: "reload", NoWait: true}); a.Outcome != client.Pending {
		t.Fatalf("%+v", a)
	}
	preforktest.WaitFor(t, "the hook BeforeSpawn", func() bool { // after Reload
		h := status(t, c).Pools[0].Hook
		return h != nil && h.Name == "BeforeSpawn"
	})
	_, err := c.Get(context.Background(), "/healthz", nil)
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Code != 503 || !strings.Contains(refused.Problem.Error, "BeforeSpawn") {
		t.Errorf("/healthz: %v", err)
	}
	os.Remove(hook)
	await(t, c, "reloaded>1")
	preforktest.WaitFor(t, "a healthy loop", func() bool { // its time is short
		_, err := c.Get(context.Background(), "/healthz", nil)
		return err == nil
	})
	p.Signal(syscall.SIGTERM)
	p.Expect("returned")
}

// Each way a reload ends is the answer.
func TestReload(t *testing.T) {
	_, c := startPool(t)
	await(t, c, "settled")
	for _, how := range []string{"", "rolling", "plain", "interval=1ms"} {
		a := do(t, c, client.Command{Name: "reload", Query: url.Values{"how": {how}}})
		st := status(t, c).Pools[0]
		if a.Outcome != client.Done || a.Generation != st.Generation || !st.Settled || st.Serving != a.Generation {
			t.Errorf("how=%s: %+v, then %+v", how, a, st)
		}
	}
	if a := do(t, c, client.Command{Name: "restart"}); a.Outcome != client.Done || a.Generation != 6 {
		t.Errorf("restart: %+v", a)
	}
	touch(t, beside(c, "bad"))
	if a := do(t, c, client.Command{Name: "reload"}); a.Outcome != client.Failed || !strings.Contains(a.Error, "the configuration is bad") {
		t.Errorf("a bad configuration: %+v", a)
	}
	os.Remove(beside(c, "bad"))
	touch(t, beside(c, "crash"))
	a := do(t, c, client.Command{Name: "reload"})
	os.Remove(beside(c, "crash"))
	if a.Outcome != client.Failed || !strings.Contains(a.Error, "crashed: exit code 1") || !strings.Contains(a.Error, "generation ") {
		t.Errorf("workers that crash: %+v", a)
	}
	await(t, c, "settled")
	st := status(t, c).Pools[0]
	if st.LastReload == nil || st.LastReload.Outcome != client.Failed || st.LastReload.Error == "" || st.Serving == st.Generation {
		t.Errorf("afterwards: %+v, serving %d of %d", st.LastReload, st.Serving, st.Generation)
	}
	if a := do(t, c, client.Command{Name: "reload"}); a.Outcome != client.Done {
		t.Errorf("the next one: %+v", a)
	}
}

func TestScaleAndWorkers(t *testing.T) {
	_, c := startPool(t)
	await(t, c, "settled")
	for _, n := range []string{"4", "-1", "+1", "2"} {
		a := do(t, c, client.Command{Name: "scale", Query: url.Values{"workers": {n}}})
		if st := status(t, c).Pools[0]; a.Outcome != client.Done || fmt.Sprintf("%d workers", st.Counts.Ready) != a.Text || !st.Settled {
			t.Errorf("scale %s: %+v, then %+v", n, a, st)
		}
	}
	for _, verb := range []string{"replace", "stop", "kill"} {
		workers := status(t, c).Pools[0].Workers
		w := workers[slices.IndexFunc(workers, func(w client.Worker) bool { return w.State == "ready" })]
		a := do(t, c, client.Command{Name: fmt.Sprintf("workers/%d/%s", w.ID, verb)})
		if a.Outcome != client.Done {
			t.Errorf("%s: %+v", verb, a)
		}
		for _, now := range status(t, c).Pools[0].Workers {
			if now.ID == w.ID && now.State == "ready" {
				t.Errorf("%s: worker %d is still there", verb, w.ID)
			}
		}
		await(t, c, "settled")
	}
	if a := do(t, c, client.Command{Name: "pause"}); a.Outcome != client.Done {
		t.Errorf("pause: %+v", a)
	}
	await(t, c, "paused")
	if a := do(t, c, client.Command{Name: "resume"}); a.Outcome != client.Done {
		t.Errorf("resume: %+v", a)
	}
	if st := status(t, c).Pools[0]; st.Pausing {
		t.Error("still pausing")
	}
	if a := do(t, c, client.Command{Name: "signal", Query: url.Values{"signal": {"USR1"}, "to": {"manager"}}}); a.Outcome != client.Done {
		t.Errorf("signal: %+v", a)
	}
	var refused *client.RefusedError
	if _, err := c.Do(context.Background(), client.Command{Name: "workers/1/kill"}); !errors.As(err, &refused) || refused.Code != 404 {
		t.Errorf("a worker that is gone: %v", err)
	}
}

// A successor that fails leaves the socket as it was, and one that takes over has
// it at once: no request is refused or unanswered, and the path is never missing.
func TestUpgrade(t *testing.T) {
	p, c := startPool(t)
	await(t, c, "settled")
	touch(t, beside(c, "crash"))
	if a := do(t, c, client.Command{Name: "upgrade"}); a.Outcome != client.Failed || a.Error == "" {
		t.Errorf("a successor whose workers crash: %+v", a)
	}
	os.Remove(beside(c, "crash"))
	if st := status(t, c); st.PID != p.PID() {
		t.Errorf("afterwards %d answers", st.PID)
	}
	var (
		asked atomic.Int64
		mu    sync.Mutex
		past  []int // managers that have a successor
	)
	superseded := func() []int {
		mu.Lock()
		defer mu.Unlock()
		return past[:len(past):len(past)]
	}
	load := preforktest.StartLoad(t, 4, func(int) error {
		before := superseded()
		mine, err := client.Dial(c.Socket())
		if err != nil {
			return err
		}
		st, err := mine.Status(context.Background(), client.StatusOptions{})
		if err != nil {
			return err
		}
		if slices.Contains(before, st.PID) {
			return fmt.Errorf("%d answers, although it had a successor before it was asked", st.PID)
		}
		asked.Add(1)
		return nil
	})
	manager := p.PID()
	for range testprog.Times(30) {
		events := make(chan client.Event, 1000)
		began := make(chan bool, 1)
		go func() {
			defer close(events)
			for e, err := range dial(t, c.Socket()).Events(context.Background(), client.EventsOptions{}) {
				if err != nil {
					t.Errorf("the old one's stream: %v", err)
					return
				}
				if e.Type == client.TypeState {
					began <- true
				}
				events <- e
			}
		}()
		<-began
		a := do(t, c, client.Command{Name: "upgrade"})
		if a.Outcome != client.Done || a.Successor == 0 {
			t.Fatalf("%+v", a)
		}
		mu.Lock()
		past = append(past, manager)
		mu.Unlock()
		manager = a.Successor
		st := status(t, c)
		if st.PID != a.Successor {
			t.Errorf("%d answers, and the successor is %d", st.PID, a.Successor)
		}
		checkStream(t, events, a.Successor)
		if mine := dial(t, c.Socket()); reportsPIDs && mine.Peer().PID != a.Successor {
			t.Errorf("the kernel names %+v, and the successor is %d", mine.Peer(), a.Successor)
		}
		await(t, c, "settled")
	}
	if result := load.Stop(); result.Failed > 0 {
		t.Errorf("%v", result)
	}
	t.Logf("%d answers", asked.Load())
	if a := do(t, c, client.Command{Name: "stop"}); a.Outcome != client.Done {
		t.Errorf("stop: %+v", a)
	}
	p.WaitGone() // the last successor has answered, and exits
}

// checkStream checks the events of an old manager: without a gap, with the end at
// the takeover, and on until its last worker is gone.
func checkStream(t *testing.T, events <-chan client.Event, successor int) {
	t.Helper()
	var last uint64
	var types []string
	for e := range events {
		if e.Seq != 0 {
			if last != 0 && e.Seq != last+1 {
				t.Errorf("event %d follows %d", e.Seq, last)
			}
			last = e.Seq
		}
		types = append(types, e.Type)
		if want := fmt.Sprintf(`{"reason":"upgraded","successor":%d}`, successor); e.Type == client.TypeEnd && string(e.Data) != want {
			t.Errorf("end %s, want %s", e.Data, want)
		}
	}
	text := strings.Join(types, " ")
	for _, want := range []string{"upgraded end", "exit", "manager-ended"} {
		_, rest, found := strings.Cut(text, want)
		if !found {
			t.Errorf("no %s in %s", want, text)
		}
		text = rest
	}
}

// A shutdown that has begun is not paused.
func TestPauseInShutdown(t *testing.T) {
	socket := newSocketPath(t)
	touch(t, filepath.Join(filepath.Dir(socket), "deaf"))
	defer os.Remove(filepath.Join(filepath.Dir(socket), "deaf"))
	p := preforktest.Start(t, "pool", socket)
	p.Expect("open")
	c := dial(t, socket)
	await(t, c, "settled")
	do(t, c, client.Command{Name: "stop", NoWait: true})
	for _, name := range []string{"pause", "resume", "reload", "upgrade", "scale"} {
		a := do(t, c, client.Command{Name: name, Query: url.Values{"workers": {"3"}}})
		if a.Outcome != client.Failed || a.Error != "the Manager shuts down" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// A second manager of the same path has a socket of its own.
func TestTwice(t *testing.T) {
	_, c := startPool(t)
	second := preforktest.Start(t, "pool", c.Socket())
	second.Expect("open")
	own := dial(t, fmt.Sprintf("%s-%d", c.Socket(), second.PID()))
	if st := status(t, own); st.PID != second.PID() {
		t.Errorf("%d answers", st.PID)
	}
	if st := status(t, c); st.PID == second.PID() {
		t.Error("the second one has the first one's place")
	}
}

// In a Start loop, and at the end, everything is as in Run.
func TestStartLoop(t *testing.T) {
	p, c := startPool(t, "start")
	await(t, c, "settled")
	if a := do(t, c, client.Command{Name: "reload"}); a.Outcome != client.Done || a.Generation != 2 {
		t.Errorf("reload: %+v", a)
	}
	if a := do(t, c, client.Command{Name: "stop"}); a.Outcome != client.Done {
		t.Errorf("stop: %+v", a)
	}
	testprog.ExpectSuccess(t, p)
}
