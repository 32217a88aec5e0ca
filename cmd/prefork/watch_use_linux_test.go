package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// What is wrong with the flags is said, with status 2; a directory that is not there
// is an error at run time.
func TestWatchUsage(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		text   string
	}{
		{"watch", 2, "accepts 1 arg"},
		{"watch a b", 2, "accepts 1 arg"},
		{"watch --backoff 0,x .", 2, "prefork watch: --backoff 0,x: "},
		{"watch --style x .", 2, "prefork watch: --style x: "},
		{"watch --log-json --log-prefix .", 2, "--log-prefix cannot be combined"},
		{"watch /nonexistent/services", 1, "/nonexistent/services: no such file or directory"},
		{"watch watch.go", 1, "watch.go: not a directory"},
		{"watch --journal /nonexistent/journal .", 1, "--journal: "},
	} {
		if status, out, errs := command(strings.Fields(c.args)...); status != c.status || out != "" || !strings.Contains(errs, c.text) {
			t.Errorf("%s: status %d, %q, %q; want %d, %q", c.args, status, out, errs, c.status, c.text)
		}
	}
}

// The printed crontab has the flags, and paths that do not depend on the directory.
func TestWatchCrontab(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	abs := func(name string) string { return "'" + filepath.Join(cwd, name) + "'" }
	status, out, errs := command("watch", "--crontab", "--journal", "a b", "--log", "x.log", "--control", "@web", "--settle", "1s", "some services 100%")
	command := "'" + program + "' watch '--journal=" + filepath.Join(cwd, "a b") + "' '--log=" + filepath.Join(cwd, "x.log") +
		"' --control=@web --settle=1s " + abs(`some services 100\%`)
	lines := strings.Split(out, "\n")
	if status != 0 || errs != "" || len(lines) != 5 || lines[2] != "@reboot "+command || lines[3] != "* * * * * "+command+" --quiet" {
		t.Fatalf("status %d, %s%s; want the command %s", status, out, errs, command)
	}
}

// The services of examples/watch run, and its commands work.
func TestWatchExample(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "services")
	if err := os.CopyFS(dir, os.DirFS("../../examples/watch/services")); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(base, "prefork")); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(testprog.SocketDir(t), "w"+client.Suffix)
	p := preforktest.New(t, "prefork", "watch", "--control", socket, dir)
	p.Cmd.Env = append(os.Environ(), "PATH="+base+":"+os.Getenv("PATH"))
	p.Start()
	p.ExpectAll(`^clock\[0/\d+\] it is \d\d:\d\d:\d\d$`, `^batch\[0/\d+\] batch has ended with [01] 0$`)
	current := filepath.Join(dir, "web/log/main/current")
	preforktest.WaitFor(t, "lines of web in "+current, func() bool {
		data, err := os.ReadFile(current)
		return err == nil && regexp.MustCompile(`(?m)^@[0-9a-f]{24} web starts in .*/web$`).Match(data) && strings.Contains(string(data), "GET / 200")
	})
	// At last, batch is meant to be down.
	for _, args := range []string{"sv status", "sv restart web", "sv -v stop batch", "--timeout 20s wait ready", "--timeout 20s wait settled"} {
		if status, out, errs := command(append([]string{"-s", socket}, strings.Fields(args)...)...); status != 0 || errs != "" {
			t.Errorf("%s: status %d, %q, %q", args, status, out, errs)
		}
	}
	preforktest.WaitFor(t, "the second web handles TERM", func() bool {
		data, err := os.ReadFile(current)
		return err == nil && regexp.MustCompile(` web stops\n.* web starts .*\n.* GET / 200\n`).Match(data)
	})
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
	p.WaitGone()
	if data, err := os.ReadFile(current); err != nil || !regexp.MustCompile(` web stops\n(.*\n)*.* web stops\n$`).Match(data) {
		t.Errorf("the log does not end with the last line of web: %v, %.300q", err, data[max(0, len(data)-300):])
	}
}

// systemd is notified when everything was started, of a reload, of how many services
// are up, and of the stop. No process of a service gets a variable that systemd has
// set for the process that it has started.
func TestWatchSystemd(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	const env = `env | grep -E '^(NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|LISTEN_FDS|LISTEN_PID|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|OTHER)=' >'%[1]s.new'; mv '%[1]s.new' '%[1]s'; `
	file := func(name string) string { return filepath.Join(w.base, "env."+strings.ReplaceAll(name, "/", "-")) }
	run := func(name, script string) {
		w.program(name, fmt.Sprintf(env, file(name))+script)
	}
	run("one", "exec sleep 1000")
	run("two/run", "exec sleep 1000")
	run("two/finish", "")
	run("two/control/t", "exit 1")
	run("two/log/run", "exec cat >/dev/null")
	run("lazy/run", "exec sleep 1000")
	run("bad/run", "exec sleep 1000")
	for name, content := range map[string]string{"lazy/down": "", "bad/limits": "nofile=many"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	path := filepath.Join(testprog.SocketDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); os.Remove(path) })
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	next := func(want string) { // skips those before that may come
		t.Helper()
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("no message %q: %v\n%s", want, err, strings.Join(w.Lines(), "\n"))
			}
			switch got := string(buf[:n]); {
			case regexp.MustCompile("^" + want + "$").MatchString(got):
				return
			case got != "WATCHDOG=1" && !strings.HasPrefix(got, "STATUS="):
				t.Fatalf("message %q, want %q", got, want)
			}
		}
	}
	w.Program = preforktest.New(t, "prefork", w.args("--log", "| "+fmt.Sprintf(env, file("command"))+"cat")...)
	w.Cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000", "INVOCATION_ID=x", "JOURNAL_STREAM=1:2", "SYSTEMD_EXEC_PID=3",
		"LISTEN_FDS=1", "LISTEN_PID=1", "OTHER=1")
	w.Program.Start()
	next("READY=1\nSTATUS=2 up, 1 down, 1 failed: bad")
	next("WATCHDOG=1")
	w.Signal(syscall.SIGHUP)
	next(`RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=reloading`)
	next("READY=1\nSTATUS=2 up, 1 down, 1 failed: bad")
	// They may be stopped then.
	for _, name := range []string{"one", "two/run", "two/log/run", "command"} {
		preforktest.WaitFor(t, "the variables of "+name, func() bool { _, err := os.Stat(file(name)); return err == nil })
	}
	os.Remove(filepath.Join(w.dir, "one"))
	next("STATUS=1 up, 1 down, 1 failed: bad")
	w.Signal(syscall.SIGTERM)
	next("STOPPING=1\nSTATUS=stopping, [01] services left")
	w.expectExit(0)
	for _, name := range []string{"one", "two/run", "two/finish", "two/control/t", "two/log/run", "command"} {
		want := "OTHER=1\n"
		if name == "command" {
			want = "INVOCATION_ID=x\nJOURNAL_STREAM=1:2\nOTHER=1\nSYSTEMD_EXEC_PID=3\n"
		}
		data, err := os.ReadFile(file(name))
		lines := strings.SplitAfter(string(data), "\n")
		slices.Sort(lines)
		if got := strings.Join(lines, ""); err != nil || got != want {
			t.Errorf("%s has %q, want %q: %v", name, got, want, err)
		}
	}
}
