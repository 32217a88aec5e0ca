//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
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

// A screen is a terminal of tmux with a shell in it. One client of tmux in control
// mode has all commands: a process for each would cost more than what is tested.
type screen struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func startScreen(t *testing.T, width, height int) *screen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		preforktest.Skipf(t, "tmux is not installed: apt-get install tmux")
	}
	socket := filepath.Join(testprog.SocketDir(t), "t")
	// The words of the command are words of their own: one string would be run by the
	// user's shell, which is nologin for nobody.
	cmd := exec.Command("tmux", "-u", "-S", socket, "-f", "/dev/null", "-C", "new-session", "-f", "no-output", "env", "PS1=$ ", "TERM=screen-256color", "sh")
	cmd.Env = append(preforktest.Environ(t, "prefork"), "LC_ALL=C.UTF-8")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t, in, bufio.NewScanner(out)}
	t.Cleanup(func() {
		fmt.Fprintln(in, "kill-server")
		cmd.Wait()
		os.Remove(socket)
	})
	for !strings.HasPrefix(s.out.Text(), "%session-changed ") { // commands before it have no window
		if !s.out.Scan() {
			t.Fatal("tmux has ended")
		}
	}
	s.resize(width, height)
	s.expect(`\$`)
	return s
}

// tmux runs a command of tmux and returns its output.
func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	for i, arg := range args {
		args[i] = "'" + arg + "'"
	}
	fmt.Fprintln(s.in, strings.Join(args, " "))
	reply, inside := "", false
	for s.out.Scan() {
		line := s.out.Text()
		switch {
		case !inside: // 1 means that it is the reply to a command of this client
			inside = strings.HasPrefix(line, "%begin ") && strings.HasSuffix(line, " 1")
		case strings.HasPrefix(line, "%end "):
			return reply
		case strings.HasPrefix(line, "%error "):
			s.t.Fatalf("tmux %s: %s", args, reply)
		default:
			reply += line + "\n"
		}
	}
	s.t.Fatalf("tmux %s: it has ended", args)
	return ""
}

func (s *screen) resize(width, height int) {
	s.t.Helper()
	s.tmux("resize-window", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height))
}

func (s *screen) keys(keys ...string) {
	s.t.Helper()
	s.tmux(append([]string{"send-keys"}, keys...)...)
}

// show returns the text on the screen.
func (s *screen) show() string { return s.tmux("capture-pane", "-p") }

// expect waits until the screen matches.
func (s *screen) expect(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(20 * time.Second)
	for !re.MatchString(s.show()) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the screen does not match %s:\n%s", pattern, s.show())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// top starts prefork top in the shell. The state of the terminal before it is in
// the shell's variable.
func (s *screen) top(f *fake) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys("before=$(stty -g)", "Enter")
	s.keys(exe+" -s "+f.socket+" top --interval 100ms", "Enter")
	s.expect(`SLOT`)
}

// child returns the pid of the only child of the shell.
func (s *screen) child() int {
	s.t.Helper()
	shell := 0
	fmt.Sscan(s.tmux("display-message", "-p", "#{pane_pid}"), &shell)
	children, err := preforktest.Children(shell)
	if err != nil || len(children) != 1 {
		s.t.Fatalf("children of the shell: %v, %v", children, err)
	}
	return children[0].PID
}

// restored checks that the shell has its terminal as before.
func (s *screen) restored() {
	s.t.Helper()
	preforktest.WaitFor(s.t, "the shell in the foreground", func() bool {
		return strings.TrimSpace(s.tmux("display-message", "-p", "#{pane_current_command}")) == "sh"
	})
	s.keys(`[ "$(stty -g)" = "$before" ] && echo same-"as"-before`, "Enter")
	s.expect(`same-as-before`)
	if on := s.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}"); strings.TrimSpace(on) != "0 1" {
		s.t.Errorf("alternate screen and cursor: %s", on)
	}
}

// Top shows what happens, acts on keys, and leaves the terminal as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	f := startFake(t)
	s := startScreen(t, 80, 24)
	s.top(f)
	s.expect(`web  pid \d+  v1\.4\.0  up 3d4h`)
	s.expect(`generation 3, settled  7/8 ready, 3 busy, 1 waiting`)
	s.expect(` 0  12  4711    3  ready`)
	s.expect(` 2   -     -    -  waits \d+s`)
	s.expect(` 3  15  4720    2  stopping, \d+s left`)
	f.mu.Lock()
	f.status.Pools[0].Change = &client.Change{Kind: "reload", Generation: 4, Began: time.Now(), Replaced: 3, Of: 8}
	f.mu.Unlock()
	s.expect(`reload to 4 \[###\.+\] 3 of 8 for \d+s`)

	s.keys("k")
	s.expect(`kill worker 12 \(pid 4711\)\? y/n`)
	s.keys("n")
	s.keys("r")
	s.expect(`replace of worker 12: done it`)
	s.keys("End", "t", "y")
	s.expect(`stop of worker 15: done it`)
	if f.asked("POST /v1/workers/12/kill?timeout=1m0s") {
		t.Error("a worker was killed although the question was answered by no")
	}
	s.keys("R")
	s.expect(`reload: done it`)
	s.keys("/", "waits", "Enter")
	s.expect(`filter /waits`)
	if strings.Contains(s.show(), "4711") {
		t.Errorf("the filter leaves others:\n%s", s.show())
	}
	s.keys("Escape")
	s.expect(`4711`)
	s.keys("?")
	s.expect(`choose a worker`)
	s.keys("?")

	s.resize(40, 10)
	s.expect(`(?s)7/8 ready, 3 busy.* 12.*waits`)
	s.resize(200, 50)
	s.expect(`crashed \(exit code 3\) \d+s ago, 3 in a row`)

	s.keys("C-z")
	s.expect(`(?i)stopped|suspended`)
	s.restored()
	s.keys("fg", "Enter")
	s.expect(`SLOT`)
	s.keys("q")
	s.restored()
}

// Whatever ends it, the terminal is as before. Without its manager it goes on.
func TestTopEnds(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	f := newFake(socket)
	s := startScreen(t, 80, 24)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		s.top(f)
		syscall.Kill(s.child(), sig)
		s.restored()
	}
	s.top(f)
	f.close()
	s.expect(`gone since \ds`)
	f = newFake(socket)
	defer f.close()
	s.expect(`\? keys  q quit`)
	s.keys("C-c")
	s.restored()
}

// Without a terminal it prints a block each interval, without colours.
func TestTopPlain(t *testing.T) {
	t.Parallel()
	f := startFake(t)
	status, stdout, stderr := command("-s", f.socket, "top", "--once", "--interval", "100ms")
	if status != 0 || strings.Contains(stdout, "\x1b") || !regexp.MustCompile(`(?m)^ +0 +12 +4711 +3 +ready +R +0 +1.3M +0 +\ds +0$`).MatchString(stdout) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	if status, _, stderr = command("-s", f.socket, "top", "--interval", "1ms"); status != 2 || !strings.Contains(stderr, "at least 100ms") {
		t.Errorf("status %d, %s", status, stderr)
	}
	f.on("GET /v1/status", nil)
	join := inBackground("-s", f.socket, "top", "--interval", "100ms")
	preforktest.WaitFor(t, "three looks", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.requests) > 8
	})
	f.close()
	if status, stdout, _ := join(); status != 3 || strings.Count(stdout, "SLOT") < 2 {
		t.Errorf("after the manager's end: status %d, %s", status, stdout)
	}
}
