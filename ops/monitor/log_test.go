//go:build unix

package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

// The pipe to the logger is kept over the ends of both, and over finish.
func TestLog(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo run $$; echo error >&2; exec sleep 1000", "finish: echo finish",
		`log/run: echo logger $$; while read line; do echo "log: $line"; done; echo eof`)
	r.start()
	seen := map[string]string{}
	next := func() {
		t.Helper()
		line := r.line()
		name, value, _ := strings.Cut(line, " ")
		if name == "log:" {
			name, value, _ = strings.Cut(line[5:], " ")
			name = "log:" + name
		}
		if seen[name] = value; seen[name] == "" {
			seen[name] = "yes"
		}
	}
	until := func(names ...string) {
		t.Helper()
		for _, name := range names {
			for seen[name] == "" {
				next()
			}
		}
	}
	until("log:run", "logger", "error")
	if seen["finish"]+seen["run"] != "" {
		t.Error("lines went past the logger")
	}
	pid := atoi(t, seen["log:run"])
	clear(seen)
	syscall.Kill(pid, syscall.SIGKILL)
	until("log:finish", "log:run", "error")

	logger := r.status("web/log").PID
	r.do("web/log", "d")
	r.state("web/log", "down")
	clear(seen)
	r.do("web", "t") // its lines wait in the pipe
	until("error")
	r.do("web/log", "u")
	until("logger", "log:finish", "log:run")
	if r.status("web/log").PID == logger {
		t.Error("the logger has the same pid")
	}
	r.do("web/log", "x") // is ignored, as by runsv
	if st := r.state("web/log", "run"); st.Exit {
		t.Error("x to the logger has an effect")
	}
	clear(seen)
	r.close()
	until("log:finish", "eof")
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A stop at full speed loses nothing: the service, then finish, then the end of the
// pipe, to which the logger reads.
func TestLogAtTheEnd(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", `run: trap "exit" TERM; echo up >&2; i=0; while :; do i=$((i+1)); echo $i; echo $i >last; done`, "finish: sleep 0.05; echo finish",
		"log/run: sleep 0.05; exec cat >out")
	r.start()
	r.want("up")
	preforktest.WaitFor(t, "some lines", func() bool {
		last, _ := os.ReadFile(filepath.Join(r.dir, "web/last"))
		return len(last) > 3 // a number of three digits
	})
	r.change(scan.Removed, "web")
	preforktest.WaitFor(t, "end", func() bool { return len(r.m.Services()) == 0 })
	out, err := os.ReadFile(filepath.Join(r.dir, "web/log/out"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	last, _ := os.ReadFile(filepath.Join(r.dir, "web/last"))
	for i, line := range lines[:len(lines)-1] {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	if n := len(lines) - 1; lines[n] != "finish" || n < atoi(t, strings.TrimSpace(string(last))) {
		t.Errorf("%d lines, then %q; the last was written as %s", n, lines[n], last)
	}
}

// A logger that ends before it has read everything is started again, also in a stop.
// One that takes nothing is given up.
func TestLoggerThatDiesInTheEnd(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: seq 1 5; echo up >&2; exec sleep 1000", "log/run: test -e go || exec sleep 1000; read line; echo got $line; exit 1", "log/backoff: 0")
	r.service("bad", "run: echo lost; echo up >&2; exec sleep 1000", "log/run: exit 1", "log/backoff: 0,0,0.01")
	r.start()
	r.want("up", "up")
	r.file("web/log/go", "")
	r.do("web/log", "k")
	r.stop()
	for i := 1; i <= 5; i++ {
		r.want(fmt.Sprintf("got %d", i))
	}
	r.close()
	if log := r.log.String(); !strings.Contains(log, "has not read everything") || !strings.Contains(log, "service=bad/log bytes=5") {
		t.Errorf("log:\n%s", log)
	}
}

// A logger that does not end is killed after its timeout-kill; one without it is
// waited for.
func TestLoggerThatDoesNotEnd(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up >&2; exec sleep 1000", "log/run: exec sleep 1000", "log/timeout-kill: 50")
	r.start()
	r.want("up")
	r.close()
	if log := r.log.String(); strings.Contains(log, "has not read everything") {
		t.Errorf("log:\n%s", log)
	}
}

// The log has one line for a file with bad content, and the service runs with the
// default.
func TestBadContent(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up; exit 1", "timeout-kill: soon", "down-signal: NOSUCH", "notification-fd: 2", "backoff: 0,x", "max-death-tally: 5000", "instances: 0", "finish: :")
	r.service("two", "run: "+up)
	r.start()
	ups := 0
	for ups < 4 { // backoff is 0, 1s
		if strings.HasPrefix(r.line(), "up") {
			ups++
		}
		if ups == 3 {
			break
		}
	}
	for file, content := range map[string]string{"timeout-kill": "soon", "down-signal": "NOSUCH", "notification-fd": "2", "backoff": "0,x", "max-death-tally": "5000", "instances": "0"} {
		want := fmt.Sprintf("file=%s content=%s ", filepath.Join(r.dir, "web", file), content)
		if n := strings.Count(r.log.String(), want); n != 1 {
			t.Errorf("%d lines with %q", n, want)
		}
	}
}

// A service that would have more rights than it should is not started, until the file
// is corrected.
func TestRefused(t *testing.T) {
	r := newRig(t, Config{})
	r.service("user", "run: "+up, "user: no such user")
	r.service("limits", "run: "+up, "limits: nofile=x")
	r.service("env", "run: "+up, "env: a file")
	r.service("umask", "run: "+up, "umask: 999")
	r.start()
	for _, name := range []string{"user", "limits", "env", "umask"} {
		preforktest.WaitFor(t, "problem of "+name, func() bool { return strings.Contains(strings.ToLower(r.status(name).Problem), name) })
		os.Remove(filepath.Join(r.dir, name, name))
		r.do(name, "u")
		r.want(`up \d+`)
		preforktest.WaitFor(t, "no problem of "+name, func() bool { return r.status(name).Problem == "" })
	}
}

// A service is not started without its logger if it is unknown whether it has one.
func TestUnknownLogger(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	path := filepath.Join(r.dir, "web", "log", "run")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	r.start()
	if st := r.status("web"); !strings.Contains(st.Problem, "log/run") || st.PID != 0 {
		t.Errorf("%+v", st)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.do("web", "u")
	r.want("up .*")
}

// A finish that cannot be examined is reported, and holds up nothing.
func TestUnknownFinish(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up; exit 1")
	path := filepath.Join(r.dir, "web", "finish")
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.want("up", "up")
	if !strings.Contains(r.log.String(), "cannot run finish") {
		t.Error("the log has nothing of it")
	}
}
