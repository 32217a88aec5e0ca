//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("pool", poolProgram) }

// poolProgram runs a pool with a control socket at the path of its first argument.
// The others are settings: "ready=2s" is the time to get ready, "group=1" and
// "readers=2" are groups, and "stay" gives it a service. Files beside the socket
// make it misbehave while they exist:
//
//	bad      Reload fails
//	crash    workers crash
//	mute     workers do not get ready
//	deaf     workers reach no checkpoint, and ignore the stop signal
//	hook     BeforeSpawn blocks
//	readonly the stopped flag cannot be set
func poolProgram() {
	socket := os.Args[1]
	setting := func(name string) string {
		for _, arg := range os.Args[2:] {
			if value, ok := strings.CutPrefix(arg, name); ok {
				return value
			}
		}
		return ""
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(socket), name))
		return err == nil
	}
	while := func(name string) {
		for exists(name) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	timeout, _ := time.ParseDuration(setting("ready="))
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2, Logger: slog.New(slog.DiscardHandler), CrashLoop: prefork.CrashLoop{Failures: -1},
		Readiness: prefork.Readiness{Explicit: true, Timeout: timeout},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Signal: syscall.SIGTERM, Rolling: true},
		},
		Reload: func() ([]byte, error) {
			if exists("bad") {
				return nil, errors.New("the configuration is bad")
			}
			return nil, nil
		},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { while("hook") },
	})
	if err != nil {
		testprog.Print("new: %v", err)
		return
	}
	cfg := control.Config{Path: socket, Group: setting("group="), Readers: setting("readers=")}
	if slices.Contains(os.Args[2:], "stay") {
		cfg.Stay = func() error {
			if exists("readonly") {
				return errors.New("the directory is read-only")
			}
			return nil
		}
	}
	detach, err := control.Attach(cfg, pm)
	if err != nil {
		testprog.Print("attach: %v", err)
		return
	}
	defer detach()
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		if exists("crash") {
			return errors.New("crash")
		}
		while("mute")
		w.Ready()
		if exists("deaf") {
			signal.Ignore(syscall.SIGTERM)
			while("deaf")
			return nil
		}
		for w.Context().Err() == nil {
			select {
			case <-w.Context().Done():
			case <-w.Pausing():
				w.Checkpoint()
			}
		}
		return nil
	})
	testprog.Print("%d returned: %v", os.Getpid(), err)
}

// A row is a command, and what must come of it.
type row struct {
	files  string // made before: "+crash", or removed: "-crash"
	args   string // ID stands for that of a ready worker
	status int
	words  string // a pattern in stdout and stderr
}

// A pool is a program that a table of commands is for.
type pool struct {
	*preforktest.Program
	t      *testing.T
	socket string
}

func startPool(t *testing.T, settings ...string) *pool {
	t.Helper()
	p := &pool{t: t, socket: filepath.Join(testprog.SocketDir(t), "web.prefork.sock")}
	t.Cleanup(func() { removeAll(filepath.Dir(p.socket)) })
	join := inBackground("-s", p.socket, "wait", "settled") // before the program
	p.Program = preforktest.Start(t, "pool", append([]string{p.socket}, settings...)...)
	if status, stdout, stderr := join(); status != 0 {
		t.Fatalf("wait: status %d, %q, %q", status, stdout, stderr)
	}
	return p
}

func (p *pool) file(name string) string { return filepath.Join(filepath.Dir(p.socket), name) }

// id returns the ID of the youngest worker that is ready.
func (p *pool) id() string {
	p.t.Helper()
	c, err := client.Dial(p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	st, err := c.Status(context.Background(), client.StatusOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	id := 0
	for _, w := range st.Pools[0].Workers {
		if w.State == "ready" {
			id = max(id, w.ID)
		}
	}
	return strconv.Itoa(id)
}

func (p *pool) check(rows ...row) {
	p.t.Helper()
	for _, r := range rows {
		for _, file := range strings.Fields(r.files) {
			if file[0] == '-' {
				os.Remove(p.file(file[1:]))
			} else if err := os.WriteFile(p.file(file[1:]), nil, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
		args := append([]string{"-s", p.socket}, strings.Fields(r.args)...)
		if i := slices.Index(args, "ID"); i > 0 {
			args[i] = p.id()
		}
		status, stdout, stderr := command(args...)
		if status != r.status || !regexp.MustCompile(r.words).MatchString(stdout+stderr) {
			p.t.Errorf("%s %s: status %d, stdout %q, stderr %q; want %d and %s", r.files, args[2:], status, stdout, stderr, r.status, r.words)
		}
		if status == 0 && stderr != "" && !strings.Contains(stderr, "replaced …") || status != 0 && stdout != "" && r.args != "status --check" {
			p.t.Errorf("%s %s: status %d, stdout %q, stderr %q", r.files, args[2:], status, stdout, stderr)
		}
	}
}

// Each command against a program: done, failed and pending, by status and words.
func TestCommands(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.check(
		row{"", "status --check", 0, `settled`},
		row{"", "ls", 0, `web +\d+ +settled`},
		row{"", "ping", 0, `answers in`},
		row{"", "events", 0, `generation`},
		row{"", "loglevel debug", 0, `level DEBUG`},
		row{"", "loglevel loud", 2, `none of debug, info, warn and error`},
		row{"", "reload", 0, `generation 2 is in place: 2 workers replaced in`},
		row{"", "reload --how slow", 2, `none of rolling, plain and interval=1s`},
		row{"", "wait reloaded>1", 0, `reloaded>1`},
		row{"", "--timeout 50ms wait reloaded>2", 6, `not reloaded>2 within 50ms; manager \d+ runs`},
		row{"", "restart ID", 0, `worker \d+ is replaced`},
		row{"", "restart 1", 1, `there is no worker with ID 1: the status lists`},
		row{"", "scale +1", 0, `3 workers`},
		row{"", "scale 2", 0, `2 workers`},
		row{"", "pause", 0, `all workers have paused`},
		row{"", "wait paused", 0, `paused`},
		row{"", "resume", 0, `the workers go on`},
		row{"", "wait running", 0, `running`},
		row{"", "signal WINCH --workers", 0, `SIGWINCH was sent to the workers`},
		row{"", "signal WINCH ID", 0, `SIGWINCH was sent to worker`},
		row{"", "signal WINCH 1", 1, `there is no worker with ID 1: the status lists`},
		row{"", "signal USR1", 2, `SIGUSR1 is not in the program's table of signals`},
		row{"", "signal NONE", 2, `not the name or number of a signal`},
		row{"", "kill ID", 0, `worker \d+ is gone`},
		row{"", "kill 1", 1, `there is no worker with ID 1: the status lists`},
		row{"", "wait settled", 0, ``},
		row{"", "stop ID", 0, `worker \d+ is gone`},
		row{"", "stop 1", 1, `there is no worker with ID 1: the status lists`},
		row{"", "stop --stay", 2, `no service`},
		row{"", "wait settled", 0, ``},

		// A configuration that fails.
		row{"+bad", "reload", 1, `^web: reload failed: keeping workers: the configuration is bad`},
		row{"", "restart", 1, `the configuration is bad`},
		row{"", "status --check", 0, `last reload failed`},

		// Workers that crash.
		row{"-bad +crash", "reload --how rolling", 1, `generation 3 failed, keeping generation 2: worker \d+ .*crashed: exit code 1`},
		row{"", "restart ID", 1, `crashed`},
		row{"", "upgrade", 1, `upgrade failed: .*crashed: exit code 1`},
		row{"", "--timeout 50ms scale 3", 6, `scale is not done after 50ms, and goes on`},
		row{"", "status --check", 1, `not settled`},
		row{"-crash", "wait settled", 0, ``},
		row{"+crash", "--timeout 50ms restart", 6, `restart is not done after 50ms, and goes on`},
		row{"-crash", "wait settled", 0, ``},

		// Workers that do not get ready yet.
		row{"+mute", "--timeout 50ms reload", 6, `reload is not done after 50ms, and goes on`},
		row{"", "--timeout 50ms wait settled", 6, `not settled within 50ms`},
		row{"-mute", "wait settled", 0, ``},
		row{"+mute", "--timeout 50ms restart ID", 6, `replace of worker \d+ is not done after 50ms, and goes on`},
		row{"-mute", "wait settled", 0, ``},

		// Workers that do nothing that they are asked to.
		row{"+deaf", "restart", 0, `in place: 3 workers`},
		row{"", "--timeout 50ms pause", 6, `not paused yet: worker \d+ \(slot \d, id \d+\)`},
		row{"", "--timeout 50ms wait paused", 6, `not paused within 50ms`},
		row{"", "resume", 0, ``},
		row{"", "--timeout 50ms stop ID", 6, `stop of worker \d+ is not done after 50ms, and goes on`},
		row{"", "kill ID", 0, `worker \d+ is gone`},
		row{"-deaf", "wait settled", 0, ``},

		// A hook that blocks.
		row{"+hook", "--timeout 2s restart", 6, `in the hook BeforeSpawn since`},
		row{"", "--timeout 50ms reload", 6, `in the hook BeforeSpawn since`},
		row{"", "--timeout 50ms scale 2", 6, `in the hook BeforeSpawn since`},
		row{"", "--timeout 50ms resume", 6, `in the hook BeforeSpawn since`},
		row{"", "--timeout 50ms signal WINCH --workers", 6, `in the hook BeforeSpawn since`},
		row{"", "loglevel info", 0, `level INFO`},
		row{"", "status", 0, `in the hook BeforeSpawn since`},
		row{"", "ls", 0, `web`},
		row{"", "ping", 5, `manager \d+ runs, but the loop is in the hook BeforeSpawn since`},
		row{"-hook", "wait settled", 0, ``},
		row{"", "restart", 0, ``}, // joins the one that may still wait, which goes on
	)
	p.checkStopped()

	gone := inBackground("-s", p.socket, "wait", "gone")
	p.check(
		row{"+deaf", "restart", 0, ``},
		row{"", "--timeout 50ms stop", 6, `stop is not done after 50ms, and goes on`},
		row{"", "reload", 1, `^web: reload failed: the Manager shuts down`},
		row{"", "restart", 1, `^web: restart failed: the Manager shuts down`},
		row{"", "upgrade", 1, `^web: upgrade failed: the Manager shuts down`},
		row{"", "scale 3", 1, `^web: scale failed: the Manager shuts down`},
		row{"", "--timeout 50ms wait ready", 6, `not ready within`},
		row{"", "--timeout 50ms wait stopped", 6, `not stopped within`},
		row{"-deaf", "stop", 0, `stopped`},
	)
	p.Expect(fmt.Sprintf("^%d returned: <nil>", p.PID()))
	if status, stdout, stderr := gone(); status != 0 {
		t.Errorf("wait gone: status %d, %q, %q", status, stdout, stderr)
	}
	p.check(row{"", "status", 3, `there is no socket`})
	p.Wait()
}

// checkStopped checks that each command names the manager that is suspended, within
// the time of a query.
func (p *pool) checkStopped() {
	p.t.Helper()
	thaw := preforktest.Freeze(p.t, p.PID())
	defer thaw()
	const want = `^web: manager \d+ does not answer within 5s; it is stopped \(SIGSTOP\)\n$`
	var joins []func() (int, string, string)
	verbs := []string{"status", "reload", "restart", "restart 1", "upgrade", "scale 3", "pause", "resume", "signal HUP", "kill 1", "stop", "stop 1", "loglevel info", "ping", "events", "wait stopped", "top --once"}
	began := time.Now()
	for _, verb := range verbs {
		joins = append(joins, inBackground(append([]string{"-s", p.socket}, strings.Fields(verb)...)...))
	}
	for i, join := range joins {
		status, stdout, stderr := join()
		if i == 0 && time.Since(began) > 6*time.Second {
			p.t.Errorf("status took %v", time.Since(began))
		}
		if status != 5 || stdout != "" || !regexp.MustCompile(want).MatchString(stderr) {
			p.t.Errorf("%s: status %d, stdout %q, stderr %q", verbs[i], status, stdout, stderr)
		}
	}
}

// Workers that never get ready: only what waits for them fails.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	p := startPool(t, "ready=500ms", "stay")
	p.check(
		row{"+mute", "reload", 1, `generation \d+ failed, keeping generation \d+: worker \d+ .*ready`},
		row{"", "restart ID", 1, `replace of worker \d+ failed: .*ready`},
		row{"", "--timeout 50ms restart", 6, `restart is not done after 50ms, and goes on`},
		row{"+readonly", "stop --stay", 1, `cannot set the stopped flag: the directory is read-only`},
		row{"", "ping", 0, `answers in`},
		row{"-mute -readonly", "stop --stay", 0, `stopped`},
		row{"", "wait gone", 0, `gone`},
	)
	p.Wait()
}

// A command or a wait that an upgrade comes between has its outcome from the
// successor, whose generations count from 1 again.
func TestAcrossUpgrade(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.check(row{"+hook", "--timeout 50ms upgrade", 6, `upgrade is not done after 50ms, and goes on`})
	background := func(args ...string) func() (int, string, string) {
		return inBackground(append([]string{"-s", p.socket}, args...)...)
	}
	wants := []string{"^web: reloaded>1\n$", "^web: paused\n$", "^web: generation 1 is in place|^web: generation 2 is in place"}
	joins := []func() (int, string, string){background("wait", "reloaded>1"), background("wait", "paused"), background("reload")}
	stopped := background("wait", "stopped")
	p.check(
		row{"-hook", "upgrade", 0, `successor \d+ has taken over`},
		row{"", "wait settled", 0, `settled`},
		row{"", "reload", 0, `generation \d is in place`},
		row{"", "pause", 0, `paused`},
	)
	for i, join := range joins {
		if status, stdout, stderr := join(); status != 0 || !regexp.MustCompile(wants[i]).MatchString(stdout) {
			t.Errorf("%d: status %d, %q, %q", i, status, stdout, stderr)
		}
	}
	if _, stdout, _ := command("-s", p.socket, "status"); strings.Contains(stdout, fmt.Sprintf("pid %d ", p.PID())) {
		t.Errorf("the old manager answers: %s", stdout)
	}
	p.check(row{"", "stop", 0, `stopped`})
	if status, stdout, stderr := stopped(); status != 0 {
		t.Errorf("wait stopped: status %d, %q, %q", status, stdout, stderr)
	}
	p.check(row{"", "wait gone", 0, `gone`})
	p.WaitGone()
}

// Another user, a reader and a member of the group, by the command as a process.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "needs root, to be another user")
	}
	const uid, gid, group, readers = 64123, 64124, 64200, 64201
	p := startPool(t, "group=64200", "readers=64201")
	dir := filepath.Dir(p.socket)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	private := newFake(filepath.Join(dir, "private.prefork.sock"))
	defer private.close()
	if err := os.Chmod(private.socket, 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(program string, groups []uint32, args ...string) *preforktest.Program {
		t.Helper()
		other := preforktest.New(t, program, args...)
		other.Cmd.Dir = "/"
		other.Cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
		exe, err := os.Open(other.Cmd.Path) // the test binary is in a directory of root's
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { exe.Close() })
		other.Cmd.ExtraFiles = []*os.File{exe}
		other.Cmd.Path = "/proc/self/fd/3"
		return other
	}
	for _, test := range []struct {
		groups []uint32
		socket string
		args   string
		status int
		words  string
	}{
		{nil, private.socket, "status", 4, `^private: not permitted for user 64123: the socket .* \(mode 0600\) is for root`},
		{nil, p.socket, "status", 4, `^web: user 64123 \(pid \d+\) is not permitted: the socket is for root and the members of group 64200; members of group 64201 may ask`},
		{nil, p.socket, "reload", 4, `is not permitted`},
		{[]uint32{readers}, p.socket, "status --check", 0, `settled`},
		{[]uint32{readers}, p.socket, "reload", 4, `may only ask: commands are for root and the members of group 64200`},
		{[]uint32{group}, p.socket, "reload", 0, `generation 2 is in place`},
	} {
		other := start("prefork", test.groups, append([]string{"-s", test.socket}, strings.Fields(test.args)...)...)
		other.Start()
		code := other.Wait().ExitCode()
		other.WaitGone() // its last lines
		if text := strings.Join(other.Lines(), "\n"); code != test.status || !regexp.MustCompile("(?m)"+test.words).MatchString(text) {
			t.Errorf("%d, %s: status %d, %s; want %d and %s", test.groups, test.args, code, text, test.status, test.words)
		}
	}

	// Root does not ask another user's abstract socket, and is shown how to.
	name := fmt.Sprintf("abstract%d", os.Getpid())
	foreign := start("fake", nil, "@prefork/64123/"+name)
	in, err := foreign.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	foreign.Start()
	foreign.Expect("open")
	for socket, want := range map[string]int{name: 3, "@prefork/64123/" + name: 4} {
		status, stdout, stderr := command("-s", socket, "status")
		if status != want || stdout != "" || !regexp.MustCompile("run prefork as (user 64123|that user)").MatchString(stderr) {
			t.Errorf("-s %s: status %d, %q, %q", socket, status, stdout, stderr)
		}
	}
	in.Close()
	foreign.Wait()
	p.check(row{"", "stop", 0, `stopped`})
	p.Wait()
}
