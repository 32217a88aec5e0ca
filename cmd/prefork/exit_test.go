//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// Each status, with the words that belong to it.
func TestExitStatus(t *testing.T) {
	failed := outcome(client.Answer{Command: "reload", Outcome: client.Failed, Error: "generation 9 failed, keeping generation 8: worker 4711 (slot 0) crashed: exit code 1 after 304ms"})
	pending := outcome(client.Answer{Command: "pause", Outcome: client.Pending, Error: "not paused yet: worker 4711 (slot 0, id 12)"})
	broken := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Write([]byte(line("generation", map[string]int{"gen": 4}) + "\n"))
		panic(http.ErrAbortHandler)
	}
	pools := func(n int) http.HandlerFunc { // of which none but the first is settled
		s := client.Status{API: 1, Name: "web", PID: os.Getpid(), Pools: []client.Pool{{Name: "p0", Settled: true}}}
		for i := range n {
			s.Pools = append(s.Pools, client.Pool{Name: fmt.Sprintf("p%d", i+1)})
		}
		return reply(200, s)
	}
	for _, test := range []struct {
		name   string
		args   string
		on     map[string]http.HandlerFunc
		status int
		stdout string // patterns
		stderr string
	}{
		{"done", "reload", nil, 0, `^web: done it\n$`, `^$`},
		{"quiet", "-q reload", nil, 0, `^$`, `^$`},
		{"failed", "reload", map[string]http.HandlerFunc{"POST /v1/reload": failed}, 1, `^$`,
			`^web: reload failed: generation 9 failed, keeping generation 8: worker 4711 \(slot 0\) crashed: exit code 1 after 304ms\n$`},
		{"quiet still prints why", "-q reload", map[string]http.HandlerFunc{"POST /v1/reload": failed}, 1, `^$`, `keeping generation 8`},
		{"failed as JSON", "--json reload", map[string]http.HandlerFunc{"POST /v1/reload": failed}, 1, `^\{"manager":"web",.*"outcome":"failed",.*"exit":1\}\n$`, `keeping generation 8`},
		{"no such worker", "kill 99", map[string]http.HandlerFunc{"POST /v1/workers/99/kill": refusal(404, "there is no worker 99")}, 1, `^$`, `^web: there is no worker 99`},
		{"unknown verb", "relaod", nil, 2, `^$`, `^unknown command "relaod" for "prefork"; see prefork --help\n$`},
		{"unknown flag", "reload --hwo", nil, 2, `^$`, `unknown flag: --hwo`},
		{"too many arguments", "reload now", nil, 2, `^$`, `now`},
		{"argument missing", "wait", nil, 2, `^$`, `^wait: accepts 1 arg.*; see prefork wait --help \(prefork wait STATE \[flags\]\)\n$`},
		{"no such type", "events --type exits", nil, 2, `^$`, `^--type exits: the types are worker, exit, `},
		{"no such state", "wait redy", nil, 2, `^$`, `wait redy: the states are ready, settled, .* gone`},
		{"no number", "scale many", nil, 2, `^$`, `scale many: it takes a number, such as 8, \+1 or -1`},
		{"no ID", "kill web", nil, 2, `^$`, `"web" is not the ID of a worker`},
		{"refused as wrong", "scale 3", map[string]http.HandlerFunc{"POST /v1/scale": refusal(400, `there are several pools, name one with pool=: "a", "b"`)}, 2, `^$`, `several pools, name one with -p: "a", "b"`},
		{"timeout of nothing", "--timeout 0s reload", nil, 2, `^$`, `--timeout 0s`},
		{"not permitted", "reload", map[string]http.HandlerFunc{"POST /v1/reload": refusal(403, "reload is for root, for user www and for group ops")}, 4, `^$`,
			`^web: reload is for root, for user www and for group ops\n$`},
		{"the loop stands still", "ping", map[string]http.HandlerFunc{"GET /healthz": refusal(503, "the loop is in the hook BeforeSpawn since 12s")}, 5, `^$`,
			`^web: manager \d+ runs, but the loop is in the hook BeforeSpawn since 12s\n$`},
		{"too many clients", "status", map[string]http.HandlerFunc{"GET /v1/status": refusal(503, "there are 64 connections already: try again")}, 5, `^$`, `^web: there are 64`},
		{"connection ends", "reload", map[string]http.HandlerFunc{"POST /v1/reload": broken}, 5, `^$`, `^web: the connection ended before the outcome: manager \d+ has exited`},
		{"connection ends, as JSON", "--json reload", map[string]http.HandlerFunc{"POST /v1/reload": broken}, 5, `^\{"manager":"web","error":"web: the connection ended.*","exit":5\}\n$`, `the connection ended`},
		{"connection ends, and the manager", "stop", nil, 0, `^web: stopped\n$`, `^$`},
		{"connection ends, and the manager, as JSON", "--json stop", nil, 0, `"outcome":"done",.*"text":"stopped"`, `^$`},
		{"too many clients at a stop", "stop", map[string]http.HandlerFunc{"POST /v1/stop": refusal(503, "there are 64 connections already: try again")}, 5, `^$`, `^web: there are 64`},
		{"connection ends at a stop", "--timeout 50ms stop", map[string]http.HandlerFunc{"POST /v1/stop": broken}, 5, `^$`, `^web: the connection ended before the outcome`},
		{"not in time", "--timeout 1s pause", map[string]http.HandlerFunc{"POST /v1/pause": pending}, 6, `^$`,
			`^web: pause is not done after 1s, and goes on; not paused yet: worker 4711 \(slot 0, id 12\)\n$`},
		{"wait for pools", "--timeout 1s wait settled", map[string]http.HandlerFunc{"GET /v1/wait": refusal(504, "not settled within 1s"), "GET /v1/status": pools(12)}, 6, `^$`,
			`^web: not settled within 1s: p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, and 2 more; manager \d+ runs\n$`},
		{"wait for one pool", "--timeout 1s -p p1 wait ready", map[string]http.HandlerFunc{"GET /v1/wait": refusal(504, "not ready within 1s"), "GET /v1/status": pools(12)}, 6, `^$`,
			`^web: not ready within 1s; manager \d+ runs\n$`},
		{"wait not in time", "--timeout 1s wait paused", map[string]http.HandlerFunc{"GET /v1/wait": refusal(504, "not paused within 1s")}, 6, `^$`, `^web: not paused within 1s; manager \d+ runs\n$`},
		{"check", "status --check", nil, 0, `(?s)^web  pid`, `^$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := startFake(t)
			f.on("POST /v1/stop", func(w http.ResponseWriter, r *http.Request) {
				f.server.Close()
				broken(w, r)
			})
			for request, h := range test.on {
				f.on(request, h)
			}
			status, stdout, stderr := command(append([]string{"-s", f.socket}, strings.Fields(test.args)...)...)
			if status != test.status || !regexp.MustCompile(test.stdout).MatchString(stdout) || !regexp.MustCompile(test.stderr).MatchString(stderr) {
				t.Errorf("status %d, stdout %q, stderr %q; want %d, %s, %s", status, stdout, stderr, test.status, test.stdout, test.stderr)
			}
		})
	}
}

// A socket that no process serves is status 3, whatever is in its place.
func TestNotRunning(t *testing.T) {
	dir := testprog.SocketDir(t)
	dead := filepath.Join(dir, "dead.prefork.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	t.Cleanup(func() { removeAll(dir) })
	file := filepath.Join(dir, "file")
	journal := `{"time":"2026-11-25T07:00:00Z","pid":1,"type":"exit"}` + "\n"
	for path, text := range map[string]string{file: "", filepath.Join(dir, "dead.journal"): journal} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing")
	for _, test := range []struct{ socket, stderr string }{
		{missing, "there is no socket " + missing},
		{dead, "no process listens on " + dead + ", which its manager has left behind; the last record of its journal is from 2026-11-2"},
		{file, file + " is no socket"},
		{dir, dir + " is no socket"},
		{"@prefork/none/" + filepath.Base(dir), "no process listens on @prefork/none/"},
		{"no-such-manager-" + filepath.Base(dir), "no manager is running under this name"},
		{"off", client.EnvSocket + " is off"},
	} {
		for _, verb := range []string{"status", "reload", "zap"} {
			status, stdout, stderr := command("-s", test.socket, verb)
			if status != 3 || stdout != "" || verb != "zap" && !strings.Contains(stderr, test.stderr) && test.socket != "off" {
				t.Errorf("%s of %s: status %d, stdout %q, stderr %q", verb, test.socket, status, stdout, stderr)
			}
		}
	}
	if status, stdout, _ := command("-s", missing, "--json", "status"); status != 3 || !json.Valid([]byte(stdout)) || !strings.Contains(stdout, `"exit":3`) {
		t.Errorf("as JSON: status %d, %q", status, stdout)
	}
}

func removeAll(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		os.Remove(filepath.Join(dir, e.Name()))
	}
}

// A manager that is suspended is named, with the reason.
func TestStoppedManager(t *testing.T) {
	shorten(t)
	socket := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	p := preforktest.New(t, "fake", socket)
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Expect("open")
	thaw := preforktest.Freeze(t, p.PID())
	for _, verb := range []string{"status", "reload", "ping"} {
		status, _, stderr := command("-s", socket, verb)
		want := regexp.MustCompile(`^web: manager \d+ does not answer within 100ms; it is stopped \(SIGSTOP\)\n$`)
		if status != 5 || !want.MatchString(stderr) {
			t.Errorf("%s: status %d, stderr %q", verb, status, stderr)
		}
	}
	if _, stdout, _ := command("ls"); !regexp.MustCompile(`web +` + `\d+ +no answer: it is stopped \(SIGSTOP\)`).MatchString(stdout) {
		t.Errorf("ls: %s", stdout)
	}
	thaw()
	in.Close()
	p.Wait()
}

// The error for a user who may not connect names those who may use the socket.
func TestNotPermitted(t *testing.T) {
	if os.Getuid() == 0 {
		text := whoMay("/proc/self/status", 65534)
		if !strings.Contains(text, "is for root") {
			t.Errorf("%s", text)
		}
		preforktest.Skipf(t, "root may connect to every socket")
	}
	f := startFake(t)
	if err := os.Chmod(f.socket, 0); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := command("-s", f.socket, "status")
	if want := "is for root and user "; status != 4 || !strings.Contains(stderr, want) {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	dir := filepath.Dir(f.socket)
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	status, _, stderr = command("-s", f.socket, "status")
	os.Chmod(dir, 0o700)
	if want := "the directory " + dir + " is closed"; status != 4 || !strings.Contains(stderr, want) {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

// The socket that is not permitted is named, and none that was not asked at all.
func TestClosedSocket(t *testing.T) {
	found := []client.Found{
		{Socket: "@prefork/7/a", Name: "a", Err: fmt.Errorf("a: %w", client.ErrForeign)},
		{Socket: "/run/b", Name: "b"},
		{Socket: "/run/c", Name: "c", Err: fmt.Errorf("c: %w", client.ErrForbidden)},
		{Socket: "/run/d", Name: "d", Err: fmt.Errorf("d: %w", client.ErrForbidden)},
	}
	for name, want := range map[string]string{"": "/run/c", "d": "/run/d", "a": "a", "x": "x"} {
		if got := closed(found, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// An abstract socket of another user may be an impostor's.
func TestForeignSocket(t *testing.T) {
	a := &app{name: "web"}
	err := a.failure(client.ErrForeign).(*exitError)
	if err.code != exitForbidden || !strings.Contains(err.text, "any user can take an abstract name") {
		t.Errorf("%d, %s", err.code, err.text)
	}
}

// While a command is pending, a hook that blocks is named.
func TestPendingNamesHook(t *testing.T) {
	f := startFake(t)
	f.on("POST /v1/reload", outcome(client.Answer{Command: "reload", Outcome: client.Pending, Error: "not done yet, and goes on"}))
	f.mu.Lock()
	f.status.Pools[0].Hook = &client.Hook{Name: "BeforeSpawn", Since: time.Now().Add(-12 * time.Second)}
	f.mu.Unlock()
	status, _, stderr := command("-s", f.socket, "--timeout", "1s", "reload")
	want := regexp.MustCompile(`^web: reload is not done after 1s, and goes on; manager \d+ runs, but its loop is in the hook BeforeSpawn since 12s\n$`)
	if status != 6 || !want.MatchString(stderr) {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestProcessState(t *testing.T) {
	if text := processState(os.Getpid()); text != "" {
		t.Errorf("of this process: %s", text)
	}
	if text := processState(1 << 30); text != "it has exited" {
		t.Errorf("of none: %s", text)
	}
	if signalName(syscall.SIGKILL) != "SIGKILL" || signalName(syscall.SIGTERM) != "SIGTERM" {
		t.Error("signal names")
	}
}
