//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// inBackground runs the command, and returns a function that waits for it.
func inBackground(args ...string) (join func() (status int, stdout, stderr string)) {
	type end struct {
		status         int
		stdout, stderr string
	}
	done := make(chan end, 1)
	go func() {
		var e end
		e.status, e.stdout, e.stderr = command(args...)
		done <- e
	}()
	return func() (int, string, string) {
		e := <-done
		return e.status, e.stdout, e.stderr
	}
}

// It waits for a socket that is not there, also if its directories are not.
func TestWaitForSocket(t *testing.T) {
	for _, below := range []string{"", "run/prefork"} {
		dir := testprog.SocketDir(t)
		t.Cleanup(func() { os.RemoveAll(filepath.Join(dir, "run")) })
		socket := filepath.Join(dir, below, "web.prefork.sock")
		join := inBackground("-s", socket, "wait", "settled")
		preforktest.WaitFor(t, "an inotify watch", func() bool { return watches() > 0 })
		if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(filepath.Dir(socket), "other")
		if err := os.WriteFile(other, nil, 0o600); err != nil { // another file changes nothing
			t.Fatal(err)
		}
		f := newFake(socket)
		if status, stdout, stderr := join(); status != 0 || stdout != "web: settled\n" {
			t.Errorf("below %q: status %d, %q, %q", below, status, stdout, stderr)
		}
		if !f.asked("GET /v1/status") && len(f.requests) != 1 {
			t.Errorf("below %q: requests %q, and only one is needed", below, f.requests)
		}
		f.close()
		os.Remove(other)
	}
}

// It waits for a socket that is bound, and listens only a second later.
func TestWaitForListen(t *testing.T) {
	dir := testprog.SocketDir(t)
	socket := filepath.Join(dir, "web.prefork.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), socket)
	defer file.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(socket)
	join := inBackground("-s", socket, "--timeout", "30s", "wait", "settled")
	time.Sleep(1200 * time.Millisecond) // more than a machine usually needs
	if err := syscall.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeOn(ln, socket)
	defer f.close()
	if status, stdout, stderr := join(); status != 0 || stdout != "web: settled\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// watches counts the inotify watches of this process.
func watches() (n int) {
	entries, _ := os.ReadDir("/proc/self/fdinfo")
	for _, e := range entries {
		data, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		n += strings.Count(string(data), "inotify wd:")
	}
	return n
}

// A manager that ends while it is asked is waited for again.
func TestWaitAcrossRestart(t *testing.T) {
	dir := testprog.SocketDir(t)
	socket := filepath.Join(dir, "web.prefork.sock")
	f := newFake(socket)
	asked := make(chan struct{}, 1)
	f.on("GET /v1/wait", func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default: // it was asked again before its end
		}
		panic(http.ErrAbortHandler)
	})
	join := inBackground("-s", socket, "wait", "ready")
	<-asked
	f.close()
	f = newFake(socket)
	defer f.close()
	if status, stdout, stderr := join(); status != 0 || stdout != "web: ready\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// Without a manager it ends with status 3 in time.
func TestWaitForNobody(t *testing.T) {
	socket := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	status, _, stderr := command("-s", socket, "--timeout", "50ms", "wait", "ready")
	if status != 3 || !strings.Contains(stderr, "there is no socket "+socket) || !strings.Contains(stderr, "waited for 50ms") {
		t.Errorf("status %d, %q", status, stderr)
	}
	for _, state := range []string{"stopped", "gone"} {
		if status, stdout, stderr := command("-s", socket, "wait", state); status != 0 || stdout != "web: "+state+"\n" {
			t.Errorf("%s: status %d, %q, %q", state, status, stdout, stderr)
		}
	}
}

// Stopped means that the last worker of each pool is gone.
func TestWaitStopped(t *testing.T) {
	f := startFake(t)
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		events(line("state", nil), line("exit", nil), line("manager-ended", nil))(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	if status, stdout, stderr := command("-s", f.socket, "wait", "stopped"); status != 0 || stdout != "web: stopped\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		events(line("state", nil))(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	if status, _, stderr := command("-s", f.socket, "--timeout", "50ms", "wait", "stopped"); status != 6 || !strings.Contains(stderr, "not stopped within 50ms") {
		t.Errorf("status %d, %q", status, stderr)
	}
	if status, _, stderr := command("-s", f.socket, "--timeout", "50ms", "wait", "gone"); status != 6 || !strings.Contains(stderr, "not gone within 50ms") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// Gone means that the process has exited.
func TestWaitGone(t *testing.T) {
	socket := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	p := preforktest.New(t, "fake", socket)
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Expect("open")
	join := inBackground("-s", socket, "wait", "gone")
	in.Close()
	if status, stdout, stderr := join(); status != 0 || stdout != "web: gone\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	p.Wait()
}

// The events are printed from the ring, then as they happen, each once.
func TestEvents(t *testing.T) {
	f := startFake(t)
	numbered := func(seq uint64, typ string) string {
		e := client.Event{Seq: seq, Time: time.Now(), PID: os.Getpid(), Type: typ, Text: "text\x1b of " + typ}
		return string(encode(t, e))
	}
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") == "0" {
			events(numbered(1, "worker"), numbered(2, "exit"), numbered(3, "worker"))(w, r)
			return
		}
		if since := r.URL.Query().Get("since"); since != fmt.Sprintf("3@%d", os.Getpid()) {
			t.Errorf("since %s", since)
		}
		events(numbered(3, "worker"), numbered(4, "exit"), line("beat", nil), line("end", client.End{Reason: client.Stopped}))(w, r)
	})
	count := func(stdout, what string) int { return strings.Count(stdout, what) }
	status, stdout, stderr := command("-s", f.socket, "events")
	if status != 0 || count(stdout, "\n") != 3 || count(stdout, "\x1b") != 0 {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	status, stdout, stderr = command("-s", f.socket, "events", "-f", "-n", "1")
	if status != 0 || count(stdout, "\n") != 3 || count(stdout, "text  of worker") != 1 || count(stdout, "text  of exit") != 1 || count(stdout, "end") == 0 {
		t.Errorf("follow: status %d, %s, %s", status, stdout, stderr)
	}
	if _, stdout, _ = command("-s", f.socket, "--json", "events", "--type", "exit"); count(stdout, `"seq":2`) != 1 || count(stdout, "\n") != 1 {
		t.Errorf("by type: %s", stdout)
	}
	f.on("GET /v1/events", events(numbered(1, "worker")))
	if status, _, stderr = command("-s", f.socket, "events", "-f"); status != 5 || !strings.Contains(stderr, "was killed") {
		t.Errorf("without an end: status %d, %s", status, stderr)
	}
}

// A pool of which no event was seen yet has all of its events followed.
func TestEventsOfTwoPools(t *testing.T) {
	f := startFake(t)
	f.status.Pools = []client.Pool{newPool("web"), newPool("queue")}
	numbered := func(pool string, seq uint64) string {
		return string(encode(t, client.Event{Seq: seq, PID: os.Getpid(), Pool: pool, Type: "exit", Text: fmt.Sprintf("%d of %s", seq, pool)}))
	}
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") == "0" {
			events(numbered("web", 6), numbered("web", 7))(w, r)
			return
		}
		if since := r.URL.Query().Get("since"); since != fmt.Sprintf("0@%d", os.Getpid()) {
			t.Errorf("since %s", since)
		}
		events(numbered("web", 7), numbered("queue", 1), numbered("web", 8), line("end", client.End{Reason: client.Stopped}))(w, r)
	})
	_, stdout, stderr := command("-s", f.socket, "events", "-f")
	for _, text := range []string{"6 of web", "7 of web", "1 of queue", "8 of web"} {
		if strings.Count(stdout, text) != 1 {
			t.Errorf("not once %q: %s%s", text, stdout, stderr)
		}
	}
}

// A pool that stops between the status and the first state of the stream has stopped.
func TestWaitStoppedAtOnce(t *testing.T) {
	f := startFake(t)
	stopped := f.status
	pool, now := newPool(""), time.Now()
	pool.Stopping, pool.Workers = &now, nil
	stopped.Pools = []client.Pool{pool}
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		events(line("state", stopped))(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	if status, stdout, stderr := command("-s", f.socket, "--timeout", "3s", "wait", "stopped"); status != 0 || stdout != "web: stopped\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// A manager's socket may be in any directory, for root as well, so it is looked for
// again although no directory has changed.
func TestWaitForNameAnywhere(t *testing.T) {
	a := &app{socket: fmt.Sprintf("late%d", os.Getpid())}
	w := a.newSocketWatch()
	defer w.close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.wait(ctx); err != nil {
		t.Error(err)
	}
}

// After an upgrade the events of the successor are followed from the first.
func TestEventsOfSuccessor(t *testing.T) {
	f := startFake(t)
	numbered := func(pid int, seq uint64, typ string) string {
		return string(encode(t, client.Event{Seq: seq, PID: pid, Type: typ, Text: "text"}))
	}
	followed := 0
	successor := make(chan struct{})
	f.on("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") == "0" {
			events(numbered(os.Getpid(), 7, "worker"))(w, r)
			return
		}
		f.mu.Lock()
		followed++
		n := followed
		f.mu.Unlock()
		if n == 1 {
			events(line("end", client.End{Reason: client.Upgraded, Successor: 99}))(w, r)
			w.(http.Flusher).Flush()
			<-successor
			events(numbered(os.Getpid(), 8, "exit"))(w, r)
			return
		}
		if since := r.URL.Query().Get("since"); since != "0@99" {
			t.Errorf("the successor was asked for events since %s", since)
		}
		events(numbered(99, 1, "manager-started"), line("end", client.End{Reason: client.Stopped}))(w, r)
		close(successor)
	})
	status, stdout, stderr := command("-s", f.socket, "events", "-f")
	for _, want := range []string{"  worker ", "  end ", "  manager-started ", "  exit "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("status %d, without %q: %s%s", status, want, stdout, stderr)
		}
	}
}
