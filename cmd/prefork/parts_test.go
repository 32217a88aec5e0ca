//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/preforktest"
)

// startRun starts prefork run with a control socket of its own.
func startRun(t *testing.T, args ...string) *preforktest.Program {
	t.Helper()
	return preforktest.Start(t, "prefork", append([]string{"run", "--control", filepath.Join(preforktest.SocketDir(t), "control")}, args...)...)
}

// With --pass systemd a program finds its sockets as systemd passes them: their
// number, its own pid, and their names.
func TestRunPassSystemd(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	p := startRun(t, "--listen", "127.0.0.1:0", "--listen", "udp:127.0.0.1:0", "--pass", "systemd", "--ready", "at-once", "--",
		sh, "-c", `test $LISTEN_PID = $$ && own=own; echo "fds $LISTEN_FDS, $own pid, names $LISTEN_FDNAMES, starter ${SERVER_STARTER_PORT-unset}"; ls -l /proc/$$/fd/ | grep -c socket; exec sleep 60`)
	p.Expect(`msg="generation begins" .*program=` + regexp.QuoteMeta(sh) + `$`)
	p.Expect(`^fds 2, own pid, names 127\.0\.0\.1-\d+:u127\.0\.0\.1-\d+, starter unset$`)
	p.Expect(`^2$`)
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
}

// A program is ready when its URL is answered with a success. That of each slot has
// its own port.
func TestRunReadyHTTP(t *testing.T) {
	t.Parallel()
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	const program = `
use strict; use Socket;
$| = 1;
socket(my $s, AF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
bind($s, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) and listen($s, 5) or die $!;
for (my $status = 503; accept(my $c, $s); $status = 204) {
	sysread($c, my $request, 4096);
	print "$status ", $request =~ /^(\S+ \S+)/, "\n";
	syswrite($c, "HTTP/1.1 $status x\r\nConnection: close\r\n\r\n");
}
`
	port := freePort(t) / 10 * 10 // the slot is the last digit
	p := startRun(t, "--ready", fmt.Sprintf("http://127.0.0.1:%d%%i/health", port/10), "--", perl, "-e", program, fmt.Sprintf("%d%%i", port/10))
	p.Expect("the old worker may answer")
	p.Expect(`^503 GET /health$`)
	p.ExpectAll(`^204 GET /health$`, "msg=settled") // the line comes by the pipe of the log
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
}

// A program that is never ready is killed, and its generation given up.
func TestRunReadyTimeout(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	p := startRun(t, "--ready", "fd:5", "--ready-timeout", "0.2s", "--env", "G=%g", "--", sh, "-c", `test $G = 1 && echo >&5; exec sleep 60`)
	p.Expect("msg=settled")
	p.Signal(syscall.SIGHUP)
	p.Expect("new generation failed")
	p.Expect("msg=settled")
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
}

// The file of --log is rotated, and the files together have every line once.
// Messages of the manager are not among them.
func TestRunLogFile(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	dir := preforktest.SocketDir(t)
	const lines = 300
	p := startRun(t, "--log", filepath.Join(dir, "web.log"), "--log-max", "1K,100", "--restart", "never", "--ready", "at-once", "--",
		sh, "-c", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo "line $i of the program"; i=$((i+1)); done; printf unfinished`, lines))
	testprog.ExpectSuccess(t, p)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	var all, want []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || len(data) > 1024 {
			t.Errorf("%s has %d bytes, %v", file, len(data), err)
		}
		all = append(all, strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")...)
	}
	for i := range lines {
		want = append(want, fmt.Sprintf("line %d of the program", i))
	}
	want = append(want, "unfinished")
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("%d files have %d lines, want %d: %.2000q", len(files), len(all), len(want), all)
	}
}

// A file that cannot be opened is an error that names it, before a program runs.
func TestRunLogDirectoryMissing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(preforktest.SocketDir(t), "missing", "web.log")
	p := startRun(t, "--log", file, "--", "echo", "started")
	p.Expect(regexp.QuoteMeta(file))
	state := p.Wait()
	if text := strings.Join(p.Lines(), "\n"); state.ExitCode() != 1 || strings.Contains(text, "started") {
		t.Errorf("%v: %s", state, text)
	}
}

// The last lines of a program that failed are in the journal, even if they went to
// a command.
func TestRunJournal(t *testing.T) {
	t.Parallel()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	dir := preforktest.SocketDir(t)
	file := filepath.Join(dir, "journal")
	p := startRun(t, "--journal", file, "--log", "| cat >"+filepath.Join(dir, "log"), "--restart", "never", "--ready", "at-once", "--name", "web", "--",
		sh, "-c", "echo first; echo the last words; exit 3")
	testprog.ExpectSuccess(t, p)
	var all []string
	for r, err := range journal.Read(file) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%T: %v", r.Event, r.Event))
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{`(?m)^record\.Started: `, `(?m)^prefork\.ExitEvent: .*code 3`, `first \| the last words`, `(?m)^record\.Ended: `} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no record %s in\n%s", want, text)
		}
	}
}

// The program runs as the user, in the root directory and in the cgroup of the flags.
func TestRunConfined(t *testing.T) {
	t.Parallel()
	preforktest.NeedRoot(t)
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	t.Run("user", func(t *testing.T) {
		p := startRun(t, "--user", "nobody", "--listen", "127.0.0.1:0", "--ready", "at-once", "--", sh, "-c", `echo "uid $(id -u), port $SERVER_STARTER_PORT"; exec sleep 60`)
		got := p.Expect(`^uid (\d+), port 127\S+=3$`)
		if uid, _ := exec.Command("id", "-u", "nobody").Output(); got[1] != strings.TrimSpace(string(uid)) {
			t.Errorf("uid %s, want %s", got[1], uid)
		}
		p.Signal(syscall.SIGTERM)
		testprog.ExpectSuccess(t, p)
	})
	t.Run("chroot", func(t *testing.T) {
		root := jail(t, sh)
		p := startRun(t, "--user", "nobody", "--chroot", root, "--dir", "/inside", "--ready", "at-once", "--", "/bin/sh", "-c", `test -e /only-here && echo "inside, in $PWD"; >/x || echo "not root"; while :; do read x </fifo; done`)
		p.Expect(`^inside, in /inside$`)
		p.Expect(`^not root$`)
		p.Signal(syscall.SIGTERM)
		testprog.ExpectSuccess(t, p)
	})
	t.Run("cgroup", func(t *testing.T) {
		dir := cgroup(t)
		p := startRun(t, "--cgroup", dir, "--ready", "at-once", "--", sh, "-c", `grep ^0:: /proc/self/cgroup; exec sleep 60`)
		p.Expect(`^0::\S*/` + regexp.QuoteMeta(filepath.Base(dir)) + `$`)
		p.Signal(syscall.SIGTERM)
		testprog.ExpectSuccess(t, p)
	})
}

// jail returns a root directory with a shell, a fifo and nothing else.
func jail(t *testing.T, sh string) (root string) {
	t.Helper()
	root = preforktest.SocketDir(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	copyTo := func(from, to string) {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	libraries, _ := exec.Command("ldd", sh).Output() // none if it is linked statically
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		copyTo(path, filepath.Join(root, path))
	}
	copyTo(sh, filepath.Join(root, "bin/sh"))
	copyTo("/dev/null", filepath.Join(root, "only-here"))
	if err := os.Mkdir(filepath.Join(root, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// cgroup returns a new cgroup of version 2, or skips the test.
func cgroup(t *testing.T) (dir string) {
	t.Helper()
	for _, parent := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(parent, "cgroup.controllers")); err != nil {
			continue
		}
		dir := filepath.Join(parent, "prefork-run-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) == nil {
			t.Cleanup(func() {
				preforktest.WaitFor(t, "the cgroup to be empty", func() bool { return os.Remove(dir) == nil })
			})
			return dir
		}
	}
	preforktest.Skipf(t, "no cgroup of version 2 can be made here")
	return ""
}
