//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// server is a web server on the socket of SERVER_STARTER_PORT. It exits with code 1
// after its start if the file that is its argument exists.
const server = `
use strict; use Socket;
my ($fd) = $ENV{SERVER_STARTER_PORT} =~ /=(\d+)/;
open(my $ln, "+<&=", $fd) or die $!;
my $stop; $SIG{TERM} = sub { $stop = 1 };
$| = 1; print "started $ENV{SERVER_STARTER_GENERATION} $ENV{SLOT}\n";
exit 1 if -e $ARGV[0];
while (!$stop) {
	my $in = ''; vec($in, $fd, 1) = 1;
	select($in, undef, undef, 0.02) > 0 or next;
	accept(my $c, $ln) or next;
	my $text = '';
	while ($text !~ /\r\n\r\n/) {
		my $n = sysread($c, $text, 4096, length $text);
		last if defined $n ? !$n : !$!{EINTR}; # TERM may come between
	}
	syswrite($c, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n$ENV{SERVER_STARTER_GENERATION}");
	shutdown($c, 1); sysread($c, $text, 1);
}
`

// get returns the answer of a server.
func get(client *http.Client, address string) (string, error) {
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// A reload of a program of another language loses no request, a generation that
// fails after its start leaves the one before it, and TERM ends all of it.
func TestRunPerl(t *testing.T) {
	t.Parallel()
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	dir := preforktest.TempDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	bad := path("bad")
	p := preforktest.Start(t, "prefork", "run", "-n", "2", "--listen", "127.0.0.1:0=7", "--interval", "0.2", "--log-prefix", "--name", "web", "--env", "SLOT=slot%i",
		"--control", path("control"), "--pid-file", path("web.pid"), "--status-file", path("status"), "--", perl, "-e", server, bad)
	address := p.Expect(`address=(127\S+)`)[1]
	p.ExpectAll(`^web\[0/\d+\] started 1 slot0$`, `^web\[1/\d+\] started 1 slot1$`, "msg=settled")
	if data, err := os.ReadFile(path("status")); err != nil || !regexp.MustCompile(`^1:\d+\n1:\d+\n$`).Match(data) {
		t.Errorf("status file: %q, %v; want two lines of generation 1", data, err)
	}
	second := preforktest.Start(t, "prefork", "run", "--pid-file", path("web.pid"), "--control", "off", "--", "true")
	second.Expect("already running")
	if state := second.Wait(); state.ExitCode() != 4 {
		t.Errorf("a second manager: %v, want status 4", state)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	load := preforktest.StartLoad(t, 4, func(int) error {
		_, err := get(client, address)
		return err
	})
	if status, _, errs := command("run", "--restart", "--pid-file", path("web.pid"), "--status-file", path("status")); status != 0 {
		t.Errorf("run --restart: status %d, %q", status, errs)
	}
	p.Expect(`msg=reload generation=2 ready="2 of 2"`)
	if data, err := os.ReadFile(path("status")); err != nil || !regexp.MustCompile(`^2:\d+\n2:\d+\n$`).Match(data) {
		t.Errorf("status file: %q, %v; want two lines of generation 2", data, err)
	}
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.Expect("new generation failed")
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	p.Expect("msg=settled pool=web gen=2") // workers of generation 3 may serve until then
	load.Await(8)
	if r := load.Stop(); r.Failed > 0 {
		t.Error(r)
	}
	if got, err := get(client, address); got != "2" {
		t.Errorf("generation %q answers, %v; want 2", got, err)
	}
	if status, _, errs := command("run", "--stop", "--pid-file", path("web.pid")); status != 0 {
		t.Errorf("run --stop: status %d, %q", status, errs)
	}
	testprog.ExpectSuccess(t, p)
}

// Programs that end on their own: exit statuses, and what the last lines were.
// start_server's --restart has no value, and an argument of the program that looks
// like it stays as it is, with and without "--" before the program.
func TestStartServerRestart(t *testing.T) {
	for given, want := range map[string]string{
		"run --restart": "run --restart=now",
		"run --pid-file f --restart --status-file s": "run --pid-file f --restart=now --status-file s",
		"run --restart never -- app --restart":       "run --restart never -- app --restart",
		"run --restart=never app --restart":          "run --restart=never app --restart",
		"run -n 2 --log-json app --restart":          "run -n 2 --log-json app --restart",
		"run -n2 app --restart":                      "run -n2 app --restart",
		"run --restart on-failure --group app run":   "run --restart on-failure --group app run",
		"run --dir --restart app":                    "run --dir --restart app",
		"run --nonsense --restart":                   "run --nonsense --restart",
		"-s run restart --restart":                   "-s run restart --restart",
		"--quiet run --restart":                      "run --quiet --restart=now",
		"-s web run --restart --timeout 5s":          "run -s web --restart=now --timeout 5s",
	} {
		got := strings.Join(startServerRestart(new(app).command(), strings.Fields(given)), " ")
		if got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	for name, c := range map[string]struct {
		args   []string
		status int
		words  string
	}{
		"not found":     {[]string{"--", "/nonexistent/program"}, 127, "no such file"},
		"no executable": {[]string{"--", "/etc/passwd"}, 126, "permission denied"},
		"done":          {[]string{"--restart", "never", "--ready", "at-once", "--", sh, "-c", "echo over"}, 0, "over"},
		"success code":  {[]string{"--restart", "on-failure", "--success", "3", "--ready", "at-once", "--", sh, "-c", "exit 3"}, 0, ""},
		"gave up":       {[]string{"--give-up", "2/1m", "--backoff", "0", "--", sh, "-c", "echo oops >&2; exit 1"}, 3, "crash loop"},
		"json":          {[]string{"--restart", "never", "--log-json", "--ready", "at-once", "--", sh, "-c", "echo over"}, 0, `"line":"over"`},
		"command":       {[]string{"--restart", "never", "--log", "| sed s/over/under/ >&2", "--ready", "at-once", "--", sh, "-c", "echo over"}, 0, "under"},
		"environment":   {[]string{"--restart", "never", "--clean-env", "--env", "A=b%g", "--dir", "/", "--ready", "at-once", "--", sh, "-c", `echo "$A-$HOME-$PWD"`}, 0, "b1--/"},
		"fd":            {[]string{"--restart", "never", "--ready", "fd:5", "--", sh, "-c", `echo >&5; sleep 0.1; echo "done"`}, 0, "done"},
		"pinned": {[]string{"--listen", "127.0.0.1:0=7", "--restart", "never", "--ready", "at-once", "--", sh, "-c",
			`echo "$(ls -l /proc/$$/fd | grep -c socket:) socket at ${SERVER_STARTER_PORT##*=}"`}, 0, "1 socket at 7"},
		"usage":        {[]string{"--ready", "soon", "--", "true"}, 2, "--ready soon"},
		"no program":   {nil, 2, "no program"},
		"unknown flag": {[]string{"--listn", "8080", "--", "true"}, 2, "see prefork run --help"},
		"unknown user": {[]string{"--user", "no-such-user", "--", "true"}, 2, "prefork run: --user: "},
		"name":         {[]string{"--restart", "never", "--ready", "at-once", "--", "true"}, 0, "workers=1 program=true"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := preforktest.TempDir(t)
			p := preforktest.Start(t, "prefork", append([]string{"run", "--control", filepath.Join(dir, "control")}, c.args...)...)
			p.Expect(regexp.QuoteMeta(c.words))
			if state := p.Wait(); state.ExitCode() != c.status {
				t.Errorf("status %d, want %d", state.ExitCode(), c.status)
			}
		})
	}
}

// Each reason for which a program cannot be executed has its own words and a
// status, the same if prefork is started once more to execute it.
func TestRunNotExecuted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := t.TempDir()
	if err := os.WriteFile(filepath.Join(env, "LONG"), []byte(strings.Repeat("x", 200<<10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	elf := "\x7fELF\x01\x02\x03" + strings.Repeat("\x00", 60)
	for name, c := range map[string]struct {
		mode   os.FileMode
		text   string
		status int
		words  string
		steps  [][]string // flags with which prefork is started once more
	}{
		"missing":     {status: 127, words: "no such file or directory"},
		"directory":   {mode: os.ModeDir | 0o755, status: 126, words: "is a directory: name the program in it"},
		"below/file":  {status: 126, words: "not a directory"},
		"loop":        {status: 126, words: "too many levels of symbolic links"},
		"long":        {0o755, "#!/bin/sh\n", 126, "its arguments or variables are too long", nil},
		"mode":        {mode: 0o644, status: 126, words: "permission denied: its mode 0644 has no x: chmod +x it"},
		"interpreter": {0o755, "#!/no/such/perl -w\n", 127, "its interpreter /no/such/perl does not exist", [][]string{{"--pass", "systemd"}}},
		"CR":          {0o755, "#!/bin/sh\r\n", 127, "its first line ends with CR", [][]string{{"--umask", "022"}}},
		"script":      {0o755, "exit 0\n", 126, "a script must begin with #!", [][]string{{"--pass", "systemd"}}},
		"nameless":    {0o755, "#!\n", 126, "its first line names no interpreter", [][]string{{"--nice", "19"}}},
		"elf": {0o755, elf, 126, "it is built for another kind of machine, or damaged", [][]string{
			{"--pass", "systemd"}, {"--pass", "systemd", "--ready", "fd:3"}, {"--pass", "systemd", "--ready", "at-once", "--restart", "never"},
		}},
	} {
		path := filepath.Join(dir, name)
		switch {
		case c.mode.IsDir():
			os.Mkdir(path, c.mode.Perm())
		case c.mode != 0:
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
		case strings.Contains(name, "/"):
			if err := os.WriteFile(filepath.Dir(path), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		direct := ""
		first := []string{"--ready", "alive:1s"}
		if name == "long" {
			first = append(first, "--envdir", env)
		}
		for _, flags := range append([][]string{first}, c.steps...) {
			p := preforktest.Start(t, "prefork", slices.Concat([]string{"run", "--control", "off"}, flags, []string{"--", path})...)
			line := p.Expect(`^prefork run: cannot spawn a worker for slot 0: .*` + regexp.QuoteMeta(c.words))
			if state := p.Wait(); state.ExitCode() != c.status {
				t.Errorf("%s %q: status %d, want %d", name, flags, state.ExitCode(), c.status)
			}
			all := p.Lines()
			if last := all[len(all)-1]; direct == "" {
				direct = last
			} else if last != direct {
				t.Errorf("%s %q: %s, and without: %s", name, flags, line[0], direct)
			}
		}
	}
}

// A file that is open for writing is tried again, also by the first step, and the
// program is ready after its execution.
func TestRunBusyFile(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	sh, err := filepath.EvalSymlinks(sh)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--pass", "systemd"}} {
		path := filepath.Join(t.TempDir(), "sh")
		if err := os.WriteFile(path, shell, 0o755); err != nil {
			t.Fatal(err)
		}
		busy, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		p := preforktest.Start(t, "prefork", slices.Concat([]string{"run", "--control", "off", "--backoff", "0", "--ready", "alive:10ms"}, flags, []string{"--", path, "-c", "echo $0 runs; exec sleep 1000", "it"})...)
		p.Expect("spawn failed.*text file busy: it is open for writing: write a new file and rename it")
		busy.Close()
		p.ExpectAll("^it runs$", `msg="worker ready"`)
		p.Signal(syscall.SIGTERM)
		testprog.ExpectSuccess(t, p)
	}
}

// A daemon is ready when its caller returns, has left its session and its streams,
// and writes to its log. An error before reaches the caller.
func TestRunDaemonize(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	for name, log := range map[string]string{"file": "%s", "command": "| exec >>%s; readlink /proc/self/fd/2; exec cat"} {
		t.Run(name, func(t *testing.T) {
			dir := preforktest.TempDir(t)
			path := func(name string) string { return filepath.Join(dir, name) }
			logFile := filepath.Join(t.TempDir(), "log")
			log := fmt.Sprintf(log, logFile)
			args := []string{"run", "--daemonize", "--log", log, "--control", path("control"), "--pid-file", path("pid"), "--ready", "fd:5", "--"}
			failed := preforktest.Start(t, "prefork", append(args, "/nonexistent/program")...)
			failed.Expect("^prefork run: .*no such file or directory$")
			if state := failed.Wait(); state.ExitCode() != 127 {
				t.Errorf("a program that does not exist: %v, want status 127", state)
			}
			p := preforktest.Start(t, "prefork", append(args, sh, "-c", "echo output; echo >&5; exec sleep 1000")...)
			testprog.ExpectSuccess(t, p)
			text, err := os.ReadFile(path("pid"))
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if session, serr := unix.Getsid(pid); err != nil || serr != nil || session != pid || pid == p.PID() {
				t.Errorf("pid file %q of %d, session %d, %v, %v", text, p.PID(), session, err, serr)
			}
			for stream := range 3 {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, stream)); err != nil || to != os.DevNull && to != logFile {
					t.Errorf("stream %d leads to %s, %v", stream, to, err)
				}
			}
			if status, _, errs := command("-s", path("control"), "upgrade"); status != 0 {
				t.Errorf("upgrade: status %d, %q", status, errs)
			}
			preforktest.WaitFor(t, "the pid file is the successor's", func() bool {
				next, err := os.ReadFile(path("pid"))
				return err == nil && string(next) != string(text)
			})
			if status, _, errs := command("run", "--stop", "--pid-file", path("pid")); status != 0 {
				t.Errorf("run --stop: status %d, %q", status, errs)
			}
			preforktest.WaitFor(t, "the end of the first manager", func() bool { return unix.Kill(pid, 0) != nil })
			preforktest.WaitFor(t, "the log is complete", func() bool {
				data, err := os.ReadFile(logFile)
				return err == nil && strings.Count(string(data), "output\n") == 2 && strings.Contains(string(data), `msg="worker gone"`)
			})
			if data, _ := os.ReadFile(logFile); name == "command" && !strings.HasPrefix(string(data), os.DevNull+"\n") {
				t.Errorf("the command of the log has a stream of the caller: %q", data)
			}
		})
	}
}

// The program has the resources of all flags, and an error names the flag.
func TestRunResources(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	run := func(args ...string) *preforktest.Program {
		control := filepath.Join(preforktest.TempDir(t), "control")
		return preforktest.Start(t, "prefork", append([]string{"run", "--control", control, "--restart", "never", "--ready", "at-once"}, args...)...)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	cpu := string(regexp.MustCompile(`(?m)^Cpus_allowed_list:\s*(\d+)`).FindSubmatch(status)[1])
	args := []string{"--umask", "026", "--nice", "19", "--cpus", cpu, "--limit", "nofile=100:200", "--limit", "core=0", "--no-new-privs"}
	script := `echo "umask $(umask), nofile $(ulimit -Sn) $(ulimit -Hn), core $(ulimit -Hc)"
while read -r name value; do case $name in NoNewPrivs:|Cpus_allowed_list:|Uid:|Gid:|Groups:) echo "$name" $value ;; esac; done </proc/self/status
read -r pid name state ppid group session tty front flags a b c d e f g h priority nice rest </proc/self/stat; echo nice $nice`
	want := []string{`umask 0026, nofile 100 200, core 0$`, `NoNewPrivs: 1$`, `Cpus_allowed_list: ` + cpu + `$`, `nice 19$`}
	if os.Getuid() == 0 {
		args = append(args, "--user", "65534:7", "--groups", "5,6")
		want = append(want, `Uid: 65534 65534 65534 65534$`, `Gid: 7 7 7 7$`, `Groups: 5 6$`)
	}
	p := run(append(args, "--", sh, "-c", script)...)
	p.ExpectAll(want...)
	testprog.ExpectSuccess(t, p)
	for flag, value := range map[string]string{"--umask": "8", "--nice": "20", "--cpus": "1023", "--limit": "rss=1", "--user": "no such user"} {
		p := run(flag, value, "--", "true")
		p.Expect(`^prefork run: ` + flag + `: .*see prefork run --help$`)
		if state := p.Wait(); state.ExitCode() != 2 {
			t.Errorf("%s %s: %v, want status 2", flag, value, state)
		}
	}
}

// A program is ready when a process of its group sends READY=1, and when it
// answers at its own address. The next generation proves that the first was ready.
func TestRunReady(t *testing.T) {
	t.Parallel()
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	const notify = `
use strict; use Socket;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;
(my $name = $ENV{NOTIFY_SOCKET}) =~ s/^@/\0/;
if (fork == 0) { send($s, "STATUS=up\nREADY=1\n", 0, pack_sockaddr_un($name)) or die $!; exit }
sleep 1 while 1; # it does not reap the child, whose group is known until then
`
	const listen = `
use strict; use Socket;
socket(my $s, AF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
bind($s, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) and listen($s, 5) or die $!;
while (accept(my $c, $s)) {}
`
	port := freePort(t)
	for value, args := range map[string][]string{
		"notify":                              {perl, "-e", notify},
		fmt.Sprintf("tcp:127.0.0.1:%d", port): {perl, "-e", listen, fmt.Sprint(port)},
	} {
		dir := preforktest.TempDir(t)
		p := preforktest.Start(t, "prefork", append([]string{"run", "--ready", value, "--control", filepath.Join(dir, "control"), "--"}, args...)...)
		p.Expect("msg=settled")
		p.Signal(syscall.SIGTERM)
		testprog.ExpectSuccess(t, p)
	}
}

// freePort returns a port that no socket has.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// A flag that gives up rights is not left out if a variable of a script is not set.
func TestRunEmptyFlags(t *testing.T) {
	for _, name := range []string{"user", "chroot", "dir", "envdir", "cgroup", "umask", "cpus", "max-memory"} {
		status, _, errs := command("run", "--control", "off", "--restart", "never", "--"+name, "", "true")
		if want := "--" + name + " is empty\n"; status != exitUsage || errs != want {
			t.Errorf("%s: exit %d, %q, want %q", name, status, errs, want)
		}
	}
}
