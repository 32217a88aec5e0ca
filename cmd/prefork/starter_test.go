//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// starterProgram is a server for start_server, whose socket must be blocking. It
// answers with its pid, its generation and the variable FOO. On a signal it prints
// which, and exits as soon as there is a file named end. It waits in select for a
// short time only: a signal just before a call that blocks would not end it.
const starterProgram = `
use strict; use Socket; use Fcntl; use Time::HiRes; use Server::Starter qw(server_ports);
my ($dir) = @ARGV;
$| = 1;
$SIG{TERM} = $SIG{USR1} = sub {
	printf "got %s at %.3f\n", $_[0], Time::HiRes::time();
	Time::HiRes::sleep(0.01) until -e "$dir/end";
	exit;
};
my $ports = server_ports();
die "ports: ", %$ports unless keys %$ports == 1;
open(my $ln, '+<&=', (values %$ports)[0]) or die $!;
die "the socket does not block" if fcntl($ln, F_GETFL, 0) & O_NONBLOCK;
while (1) {
	my $in = ''; vec($in, fileno($ln), 1) = 1;
	select($in, undef, undef, 0.02) > 0 or next;
	accept(my $c, $ln) or next;
	my $foo = $ENV{FOO} // 'unset';
	syswrite($c, "$$ $ENV{SERVER_STARTER_GENERATION} $foo");
}
`

// A starter is prefork run in the place of start_server.
type starter struct {
	*preforktest.Program
	t    *testing.T
	dir  string
	perl string
}

// newStarter starts the program in dir, which options may have named.
func newStarter(t *testing.T, dir string, options []string, program ...string) *starter {
	t.Helper()
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	if program == nil {
		program = []string{perl, "-e", starterProgram, dir}
	}
	args := append([]string{"run", "--control", filepath.Join(dir, "control"), "--interval", "0.1"}, options...)
	return &starter{preforktest.Start(t, "prefork", append(append(args, "--"), program...)...), t, dir, perl}
}

// address waits for the address of a socket.
func (s *starter) address() string {
	s.t.Helper()
	return s.Expect(`msg=listening .*address=(\S+)`)[1]
}

// ask returns the answer of the program.
func (s *starter) ask(network, address string) (pid, generation int, foo string) {
	s.t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(answer), &pid, &generation, &foo); err != nil {
		s.t.Fatalf("answer %q: %v", answer, err)
	}
	return pid, generation, foo
}

// waitStatus waits until the status file matches.
func (s *starter) waitStatus(pattern string) {
	s.t.Helper()
	file, expr := s.path("status"), regexp.MustCompile(pattern)
	preforktest.WaitFor(s.t, "status "+pattern, func() bool {
		data, err := os.ReadFile(file)
		return err == nil && expr.Match(data)
	})
}

func (s *starter) path(name string) string { return filepath.Join(s.dir, name) }

// letEnd lets the programs end that have a signal.
func (s *starter) letEnd() {
	s.t.Helper()
	if err := os.WriteFile(s.path("end"), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// stop ends the pool by TERM, and checks that its files are gone.
func (s *starter) stop() {
	s.t.Helper()
	s.letEnd()
	s.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(s.t, s.Program)
	for _, name := range []string{"status", "pid", "sock"} {
		if _, err := os.Lstat(s.path(name)); err == nil {
			s.t.Errorf("the file %s is left", name)
		}
	}
}

// The test scripts of Server::Starter 0.35, and what they check, with prefork run
// in the place of start_server. docs/PORTING.md has the differences: 02 (a program
// that fails to start), 06 (its own age for each worker) and 14 (--pass starter).
// 00 loads the module, and 13 is --daemonize of 03.
func TestServerStarter(t *testing.T) {
	t.Parallel()
	preforktest.NeedCommand(t, "start_server", "Debian: apt-get install libserver-starter-perl")
	for name, check := range map[string]func(*testing.T){
		"01-starter TERM":   func(t *testing.T) { checkStarter(t, "TERM") },
		"01-starter USR1":   func(t *testing.T) { checkStarter(t, "USR1", "--signal-on-hup", "USR1") },
		"02-startfail":      checkStartFail,
		"03-starter-unix":   checkStarterUnix,
		"04-starter-dir":    checkStarterDir,
		"05-killolddelay":   checkKillOldDelay,
		"06-autorestart":    checkAutoRestart,
		"07-envdir":         checkEnvDir,
		"08-wait3":          checkTwoHups,
		"09-guard":          checkGuards,
		"10-bindaddr":       checkBindAddr,
		"11-specified-fd":   checkSpecifiedFD,
		"12-stop":           checkStop,
		"14-without-port":   checkWithoutPort,
		"15-udp uXXX":       func(t *testing.T) { checkUDP(t, "u0") },
		"15-udp a.b.c.d:uX": func(t *testing.T) { checkUDP(t, "127.0.0.1:u0") },
	} {
		if testing.Short() && !strings.HasPrefix(name, "01") {
			continue // nothing here has a race of its own
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t)
		})
	}
}

// HUP: another process answers, the old one gets the signal, and the status file
// has one generation, both, and the new one.
func checkStarter(t *testing.T, signal string, options ...string) {
	dir := preforktest.SocketDir(t)
	s := newStarter(t, dir, append([]string{"--port", "127.0.0.1:0", "--status-file", filepath.Join(dir, "status")}, options...))
	address := s.address()
	before, _, _ := s.ask("tcp", address)
	s.waitStatus(fmt.Sprintf(`^1:%d\n$`, before))
	s.Signal(syscall.SIGHUP)
	s.Expect(`^got ` + signal + ` at`)
	s.waitStatus(fmt.Sprintf(`^1:%d\n2:\d+\n$`, before))
	if after, generation, _ := s.ask("tcp", address); after == before || generation != 2 {
		t.Errorf("pid %d of generation %d answers, it was %d", after, generation, before)
	}
	s.letEnd()
	s.waitStatus(`^2:\d+\n$`)
	s.stop()
}

// A program that fails to start is tried again. One of a later generation leaves
// the generation before it, until HUP asks for another.
func checkStartFail(t *testing.T) {
	dir := preforktest.SocketDir(t)
	failures := filepath.Join(dir, "failures")
	write := func(n int) {
		if err := os.WriteFile(failures, []byte(strings.Repeat("x", n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1) // the next start fails
	const program = `BEGIN { if (my $n = -s $ARGV[1]) { truncate($ARGV[1], $n - 1); exit 1 } }`
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--backoff", "0"}, perl, "-e", program+starterProgram, dir, failures)
	address := s.address()
	s.Expect("msg=settled .*gen=1")
	s.ask("tcp", address) // it is past the point at which it fails
	s.letEnd()
	write(1)
	s.Signal(syscall.SIGHUP)
	s.Expect("new generation failed")
	if _, generation, _ := s.ask("tcp", address); generation != 1 {
		t.Errorf("generation %d answers, want 1", generation)
	}
	s.Signal(syscall.SIGHUP)
	s.Expect("msg=settled .*gen=3")
	if _, generation, _ := s.ask("tcp", address); generation != 3 {
		t.Errorf("generation %d answers, want 3", generation)
	}
	s.stop()
}

// A unix socket can be used by all, also if its file was left behind, and is
// removed at the end.
func checkStarterUnix(t *testing.T) {
	dir := preforktest.SocketDir(t)
	path := filepath.Join(dir, "sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	s := newStarter(t, dir, []string{"--path", path})
	s.address()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("mode of the socket: %v, %v", info, err)
	}
	if _, generation, _ := s.ask("unix", path); generation != 1 {
		t.Errorf("generation %d answers", generation)
	}
	s.stop()
}

// The program runs in the directory of --dir, and is started again after each end.
func checkStarterDir(t *testing.T) {
	dir := preforktest.SocketDir(t)
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--dir", dir, "--interval", "0.01"},
		perl, "-e", `print -f "here" ? "OK" : "NG", "\n"; select(undef, undef, undef, 0.05)`)
	s.ExpectN(2, `^OK$`)
	s.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, s.Program)
}

// The old process gets its signal later than the new one is ready.
func checkKillOldDelay(t *testing.T) {
	const delay = 300 * time.Millisecond
	dir := preforktest.SocketDir(t)
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--kill-old-delay", "0.3", "--signal-on-hup", "USR1", "--status-file", filepath.Join(dir, "status")})
	s.ask("tcp", s.address()) // it has its handlers of signals
	s.waitStatus(`^1:\d+\n$`)
	s.Signal(syscall.SIGHUP)
	ready, err := time.Parse(time.RFC3339, s.Expect(`time=(\S+) .*msg="worker ready" .*gen=2`)[1])
	if err != nil {
		t.Fatal(err)
	}
	s.waitStatus(`^1:\d+\n2:\d+\n$`)
	at, err := strconv.ParseFloat(s.Expect(`^got USR1 at (\S+)`)[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	// The log has the time at which the line was written, a little later.
	if got := time.Duration(at*1e9) - time.Duration(ready.UnixNano()); got < delay-50*time.Millisecond {
		t.Errorf("the signal came %v after the new process was ready, want %v", got, delay)
	}
	s.letEnd()
	s.waitStatus(`^2:\d+\n$`)
	s.stop()
}

// Another process answers after some time without a signal, and the generation
// stays.
func checkAutoRestart(t *testing.T) {
	dir := preforktest.SocketDir(t)
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--enable-auto-restart", "--auto-restart-interval", "0.3", "--status-file", filepath.Join(dir, "status")})
	address := s.address()
	before, _, _ := s.ask("tcp", address)
	s.Expect(`^got TERM at`)
	s.waitStatus(`^1:\d+\n1:\d+\n$`)
	s.letEnd()
	if after, generation, _ := s.ask("tcp", address); after == before || generation != 1 {
		t.Errorf("pid %d of generation %d answers, it was %d", after, generation, before)
	}
	s.stop()
}

// A changed file of --envdir is a changed variable of the next process, and a
// removed one removes it.
func checkEnvDir(t *testing.T) {
	dir := preforktest.SocketDir(t)
	env := filepath.Join(dir, "env")
	file := filepath.Join(env, "FOO")
	if err := os.Mkdir(env, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("value1"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--envdir", env, "--status-file", filepath.Join(dir, "status")})
	s.letEnd()
	address := s.address()
	for generation, step := range []struct {
		want   string
		change func() error
	}{
		{"value1", func() error { return os.WriteFile(file, []byte("value2"), 0o600) }},
		{"value2", func() error { return os.Remove(file) }},
		{"unset", func() error { return nil }},
	} {
		s.waitStatus(fmt.Sprintf(`^%d:\d+\n$`, generation+1))
		if _, _, foo := s.ask("tcp", address); foo != step.want {
			t.Errorf("generation %d has FOO=%s, want %s", generation+1, foo, step.want)
		}
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		s.Signal(syscall.SIGHUP)
	}
	s.stop()
}

// Each of two signals counts, and so does one that arrives while the first process
// is starting.
func checkTwoHups(t *testing.T) {
	dir := preforktest.SocketDir(t)
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--status-file", filepath.Join(dir, "status")})
	s.letEnd()
	s.Expect(`msg="worker starting" .*gen=1`)
	for generation := 2; generation <= 3; generation++ {
		s.Signal(syscall.SIGHUP)
		s.Expect(fmt.Sprintf(`msg=settled .*gen=%d`, generation))
	}
	s.stop()
}

// The files of the pool are its own: a second manager that does not start leaves
// them.
func checkGuards(t *testing.T) {
	dir := preforktest.SocketDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	options := []string{"--path", path("sock"), "--pid-file", path("pid"), "--status-file", path("status")}
	s := newStarter(t, dir, options)
	s.waitStatus(`^1:\d+\n$`)
	second := preforktest.Start(t, "prefork", append(append([]string{"run", "--control", "off"}, options...), "--", "true")...)
	second.Expect("already running")
	second.Wait()
	if _, generation, _ := s.ask("unix", path("sock")); generation != 1 {
		t.Errorf("generation %d answers", generation)
	}
	s.waitStatus(`^1:\d+\n$`)
	if data, err := os.ReadFile(path("pid")); err != nil || string(data) != fmt.Sprintln(s.PID()) {
		t.Errorf("pid file: %q, %v; want %d", data, err, s.PID())
	}
	s.stop()
}

// A socket of IPv6 does not take the port of IPv4, and the other way round.
func checkBindAddr(t *testing.T) {
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		preforktest.Skipf(t, "no IPv6: %v", err)
	}
	probe.Close()
	for _, c := range []struct{ bind, other string }{{"127.0.0.1:0", "::1"}, {"[::1]:0", "127.0.0.1"}, {"[::]:0", "127.0.0.1"}} {
		s := newStarter(t, preforktest.SocketDir(t), []string{"--port", c.bind})
		address := s.address()
		s.ask("tcp", address)
		_, port, _ := net.SplitHostPort(address)
		if conn, err := net.Dial("tcp", net.JoinHostPort(c.other, port)); err == nil {
			conn.Close()
			t.Errorf("--port %s: %s accepts a connection", c.bind, conn.RemoteAddr())
		}
		s.stop()
	}
}

// The socket has the number that the option names, which may be 0, as for inetd.
func checkSpecifiedFD(t *testing.T) {
	for _, number := range []string{"0", "12"} {
		s := newStarter(t, preforktest.SocketDir(t), []string{"--port", "127.0.0.1:0=" + number})
		address := s.address()
		pid, _, _ := s.ask("tcp", address)
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if want := "SERVER_STARTER_PORT=" + address + "=" + number + "\x00"; err != nil || !strings.Contains("\x00"+string(env), "\x00"+want) {
			t.Errorf("environment %q, %v; want %q", env, err, want)
		}
		s.stop()
	}
}

// --stop returns when the pid file is gone.
func checkStop(t *testing.T) {
	dir := preforktest.SocketDir(t)
	pid := filepath.Join(dir, "pid")
	s := newStarter(t, dir, []string{"--port", "127.0.0.1:0", "--pid-file", pid})
	s.letEnd()
	s.address()
	if status, _, errs := command("run", "--stop", "--pid-file", pid); status != 0 {
		t.Errorf("run --stop: status %d, %q", status, errs)
	}
	if _, err := os.Lstat(pid); err == nil {
		t.Error("the pid file is left")
	}
	testprog.ExpectSuccess(t, s.Program)
}

// Without a port, the list of ports is empty but there.
func checkWithoutPort(t *testing.T) {
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	const program = `use Server::Starter qw(server_ports); $| = 1; print "ports: ", scalar(%{server_ports()}) ? 'some' : 'none', "\n"; sleep 1 while 1`
	s := newStarter(t, preforktest.SocketDir(t), []string{"--pass", "starter"}, perl, "-e", program)
	s.Expect("^ports: none$")
	s.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, s.Program)
}

// A UDP socket is passed, and takes datagrams.
func checkUDP(t *testing.T, port string) {
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	const program = `
use strict; use Socket; use Server::Starter qw(server_ports);
my ($fd) = values %{server_ports()};
open(my $s, '+<&=', $fd) or die $!;
while (1) { my $from = recv($s, my $text, 100, 0) or next; send($s, "got $text", 0, $from) }
`
	s := newStarter(t, preforktest.SocketDir(t), []string{"--port", port}, perl, "-e", program)
	_, number, _ := net.SplitHostPort(s.address())
	conn, err := net.Dial("udp", "127.0.0.1:"+number)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	if err != nil || string(answer[:n]) != "got hello" {
		t.Errorf("answer %q, %v", answer[:n], err)
	}
	s.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, s.Program)
}
