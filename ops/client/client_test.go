//go:build unix

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	os.Setenv(EnvSocket, "")
	preforktest.Main(m, map[string]func(){"listener": listener})
}

// listener listens at the address of its argument.
func listener() {
	ln, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("listening")
	for {
		if conn, err := ln.Accept(); err == nil {
			conn.Close()
		}
	}
}

// serve answers each connection to a new socket with the next of the texts, and
// with the last one from then on.
func serve(t *testing.T, answers ...string) *Client {
	t.Helper()
	c, _ := serveNoting(t, answers...)
	return c
}

// serveNoting is serve that notes the requests.
func serveNoting(t *testing.T, answers ...string) (c *Client, requests func() []string) {
	t.Helper()
	var mu sync.Mutex
	var noted []string
	path := filepath.Join(testprog.SocketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			var request [4096]byte
			n, _ := conn.Read(request[:])
			mu.Lock()
			noted = append(noted, string(request[:n]))
			mu.Unlock()
			io.WriteString(conn, answers[0])
			if len(answers) > 1 {
				answers = answers[1:]
			}
			conn.Close()
		}
	}()
	c, err = Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return noted
	}
}

func answer(code int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", code, len(body), body)
}

func TestStatusOfServers(t *testing.T) {
	ok := answer(200, `{"api":1,"pid":7}`)
	superseded := answer(503, `{"error":"superseded","successor":8}`)
	for _, test := range []struct {
		name    string
		answers []string
		want    string // of the error
	}{
		{"good", []string{ok}, ""},
		{"without a length", []string{"HTTP/1.1 200 OK\r\n\r\n{\"api\":1,\"pid\":7}"}, ""},
		{"superseded", []string{superseded, superseded, ok}, ""},
		{"ends before the answer, once", []string{"", ok}, ""},
		{"ends within the answer, once", []string{ok[:len(ok)-1], ok}, ""},
		{"closed", []string{""}, "the connection ended before the answer"},
		{"half a head", []string{"HTTP/1.1 200 OK\r\nContent-Type: x\r\n"}, "the connection ended before the answer"},
		{"half a body", []string{ok[:len(ok)-3]}, "the connection ended before the answer"},
		{"no HTTP", []string{"SSH-2.0-x\r\n\r\n"}, "not an answer of HTTP"},
		{"no code", []string{"HTTP/1.1 x\r\n\r\n"}, "not an answer of HTTP"},
		{"a wrong length", []string{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"}, "Content-Length"},
		{"a long body", []string{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"}, "Content-Length"},
		{"no JSON", []string{answer(200, "hello")}, "not a status"},
		{"refused", []string{answer(403, `{"error":"user 7 may only ask"}`)}, "user 7 may only ask"},
		{"no problem", []string{answer(500, "oops\n")}, `status 500: "oops\n"`},
		{"busy", []string{answer(503, `{"error":"there are 64 connections"}`)}, "64 connections"},
	} {
		c := serve(t, test.answers...)
		st, err := c.Status(context.Background(), StatusOptions{})
		switch {
		case test.want == "" && (err != nil || st.PID != 7):
			t.Errorf("%s: %+v, %v", test.name, st, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

// A command and a wait follow the manager to its successor, within their time.
func TestFollowsSuccessor(t *testing.T) {
	const late = `{"error":"superseded","successor":8}`
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
	event := `{"type":"resize"}` + "\n"
	for name, answers := range map[string][]string{
		"JSON":   {answer(503, late), answer(200, `{"command":"scale","outcome":"done"}`)},
		"stream": {head + event + `{"type":"outcome","code":503,"outcome":"failed","error":"superseded","successor":8}` + "\n", head + event + `{"type":"outcome","outcome":"done"}` + "\n"},
	} {
		c, requests := serveNoting(t, answers...)
		events := 0
		a, err := c.Do(context.Background(), Command{Name: "scale", Timeout: time.Hour, Events: func(Event) { events++ }})
		if err != nil || a.Outcome != Done {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		if name == "stream" && events != 2 {
			t.Errorf("%s: %d events", name, events)
		}
		checkTimeouts(t, name, requests())
	}
	c, requests := serveNoting(t, answer(503, late), answer(200, `{}`))
	if ok, err := c.Wait(context.Background(), "settled", "", time.Hour); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	checkTimeouts(t, "wait", requests())
	// Superseded again and again, until the time is over.
	c = serve(t, head+`{"type":"outcome","code":503,"outcome":"failed","error":"superseded"}`+"\n")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, Command{Name: "scale", Events: func(Event) {}}); err == nil {
		t.Error("no error")
	}
}

// checkTimeouts checks that the second request has the rest of the time of the first,
// an hour.
func checkTimeouts(t *testing.T, name string, requests []string) {
	t.Helper()
	var timeouts []time.Duration
	for _, r := range requests {
		_, rest, _ := strings.Cut(r, "timeout=")
		text, _, _ := strings.Cut(rest, " ")
		text, _, _ = strings.Cut(text, "&")
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Errorf("%s: %q", name, r)
		}
		timeouts = append(timeouts, d)
	}
	if len(timeouts) != 2 || timeouts[0] != time.Hour || timeouts[1] >= time.Hour || timeouts[1] < 30*time.Minute {
		t.Errorf("%s: timeouts %v", name, timeouts)
	}
}

func TestErrors(t *testing.T) {
	c := serve(t, answer(403, `{"error":"no"}`))
	if _, err := c.Do(context.Background(), Command{Name: "reload"}); !errors.Is(err, ErrForbidden) {
		t.Errorf("403: %v", err)
	}
	c = serve(t, answer(404, `{"error":"no worker 7"}`))
	var refused *RefusedError
	if _, err := c.Do(context.Background(), Command{Name: "workers/7/kill"}); errors.Is(err, ErrForbidden) || !errors.As(err, &refused) || refused.Code != 404 {
		t.Errorf("404: %v", err)
	}
	for code, outcome := range map[int]string{200: Done, 409: Failed, 504: Pending, 202: Pending} {
		c = serve(t, answer(code, `{"command":"x","outcome":"`+outcome+`"}`))
		if a, err := c.Do(context.Background(), Command{Name: "x"}); err != nil || a.Outcome != outcome {
			t.Errorf("%d: %+v, %v", code, a, err)
		}
	}
	c = serve(t, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{\"type\":\"exit\"}\n{\"type\":\"out")
	n := 0
	if _, err := c.Do(context.Background(), Command{Name: "x", Events: func(Event) { n++ }}); !errors.Is(err, ErrLost) || n != 1 {
		t.Errorf("an outcome that never comes: %v after %d events", err, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := serve(t, "").Status(ctx, StatusOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestEvents(t *testing.T) {
	c := serve(t, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{\"seq\":1,\"type\":\"exit\"}\n{\"seq\":2,\"type\":\"end\"}\n")
	var seqs []uint64
	for e, err := range c.Events(context.Background(), EventsOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, e.Seq)
	}
	if !slices.Equal(seqs, []uint64{1, 2}) {
		t.Errorf("%v", seqs)
	}
	c = serve(t, answer(404, `{"error":"no pool"}`))
	for _, err := range c.Events(context.Background(), EventsOptions{Pool: "x"}) {
		if err == nil || !strings.Contains(err.Error(), "no pool") {
			t.Errorf("%v", err)
		}
	}
	c = serve(t, "HTTP/1.1 200 OK\r\n\r\n{\"seq\":1}\nnonsense\n")
	var last error
	for _, err := range c.Events(context.Background(), EventsOptions{}) {
		last = err
	}
	if last == nil {
		t.Error("no error for nonsense")
	}
}

// Dial reports the reason why an address cannot be used.
func TestDial(t *testing.T) {
	dir := testprog.SocketDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path("dead")})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	defer os.Remove(path("dead"))
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path("file"))
	for _, address := range []string{path("missing"), path("dead"), path("file"), "no-such-manager", "@prefork/0/no-such-manager"} {
		if strings.HasPrefix(address, "@") && runtime.GOOS != "linux" {
			continue
		}
		if _, err := Dial(address); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", address, err)
		}
	}
	t.Setenv(EnvSocket, path("dead"))
	if _, err := Dial(""); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path("dead")) {
		t.Errorf("by the variable: %v", err)
	}
}

// Sockets are found by their names, without a registry.
func TestFind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc/net/unix")
	}
	dir := testprog.SocketDir(t)
	name := fmt.Sprintf("find%d", os.Getpid())
	var listeners []net.Listener
	for _, address := range []string{filepath.Join(dir, name+Suffix), "@prefork/7/" + name, filepath.Join(dir, "other"), "@other/" + name} {
		ln, err := net.Listen("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln)
		defer ln.Close()
	}
	found, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	found = slices.DeleteFunc(found, func(f Found) bool { return f.Name != name })
	if len(found) != 2 || found[0].PID != os.Getpid() || found[0].UID != os.Geteuid() || found[0].Err != nil {
		t.Errorf("%+v", found)
	}
	var several *SeveralError
	if _, err := Dial(name); !errors.As(err, &several) || len(several.Found) != 2 || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	listeners[1].Close()
	c, err := Dial(name)
	if err != nil || c.Socket() != filepath.Join(dir, name+Suffix) || c.Peer().PID != os.Getpid() {
		t.Fatalf("%v", err)
	}
	c.Close()
}

// A user that stands for all those outside a user namespace is trusted by none.
func TestAmbiguousUser(t *testing.T) {
	old := ambiguous
	defer func() { ambiguous = old }()
	const own = 1000
	if !isTrusted(0, own) || !isTrusted(own, own) || isTrusted(own+1, own) {
		t.Errorf("root %t, this user %t, another %t", isTrusted(0, own), isTrusted(own, own), isTrusted(own+1, own))
	}
	ambiguous = func(uint32) bool { return true }
	if isTrusted(own, own) {
		t.Error("a user that stands for several is trusted")
	}
}

// Any user can take an abstract name, so one of another user's is refused.
func TestForeignAbstractName(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		preforktest.Skipf(t, "needs root, to be another user")
	}
	address := fmt.Sprintf("@prefork/64123/foreign%d", os.Getpid())
	p := preforktest.New(t, "listener", address)
	exe, err := os.Open(p.Cmd.Path) // in a directory of root's
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	p.Cmd.ExtraFiles, p.Cmd.Path, p.Cmd.Dir = []*os.File{exe}, "/proc/self/fd/3", "/"
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64123, Gid: 64123}}
	p.Start()
	p.Expect("listening")
	if _, err := Dial(address); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "user 64123") {
		t.Errorf("%v", err)
	}
	found, _ := Find()
	i := slices.IndexFunc(found, func(f Found) bool { return f.Socket == address })
	if i < 0 || !errors.Is(found[i].Err, ErrForeign) || found[i].PID != p.PID() {
		t.Errorf("%+v", found)
	}
	if _, err := Dial(nameOf(address)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("by its name: %v", err)
	}
}

// A connection that is not used for a while is replaced: the manager closes it.
func TestUnusedConnection(t *testing.T) {
	c := serve(t, answer(200, `{"pid":7}`))
	c.until = time.Now().Add(-time.Second)
	if st, err := c.Status(context.Background(), StatusOptions{}); err != nil || st.PID != 7 {
		t.Errorf("%+v, %v", st, err)
	}
}
