//go:build unix

package supervise_test

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

// A fake is a service directory whose status is as said, and which notes what
// clients write to control.
type fake struct {
	dir, base string
	d         *supervise.Dir

	mu    sync.Mutex
	wrote string
}

// newFake writes the status. After each command it writes what answer returns.
func newFake(t testing.TB, s supervise.Status, answer map[byte]supervise.Status) *fake {
	t.Helper()
	f := &fake{base: t.TempDir()}
	f.dir = f.base + "/D"
	must(t, os.Mkdir(f.dir, 0o755))
	f.d = open(t, f.dir)
	must(t, f.d.Write(s))
	f.d.Commands(func(c byte) {
		f.mu.Lock()
		f.wrote += string(c)
		f.mu.Unlock()
		next, ok := answer[c]
		if ok {
			if next.Since.IsZero() {
				next.Since = time.Now()
			}
			if err := f.d.Write(next); err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if ok && next.Exit {
			f.d.Close()
		}
	})
	return f
}

// commands returns what clients have written. It waits for the byte that it writes
// itself.
func (f *fake) commands(t testing.TB) string {
	t.Helper()
	if probe(f.dir+"/supervise/ok") != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.wrote
	}
	say(t, f.dir, ".")
	for end := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		wrote, all := strings.CutSuffix(f.wrote, ".")
		f.mu.Unlock()
		if all {
			return wrote
		}
		if time.Now().After(end) {
			t.Fatalf("no end of %q", wrote)
		}
	}
}

// run runs a client and returns its exit code and its output, with the path of the
// directory as D and seconds as N.
func (f *fake) run(t testing.TB, env []string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	out = strings.ReplaceAll(string(b), f.base+"/", "")
	return cmd.ProcessState.ExitCode(), seconds.ReplaceAllString(strings.TrimSuffix(out, "\n"), "Ns")
}

var seconds = regexp.MustCompile(`\d+s\b`)

// A row of TestSV is one call of sv.
type svRow struct {
	args   string
	status supervise.Status
	// down: with the file down; closed: no supervisor; check0, check1: with a
	// script check of that exit code
	prep   string
	answer map[byte]supervise.Status

	wrote string
	code  int
	out   string
}

var (
	ago    = time.Now().Add(-10 * time.Second)
	future = time.Now().Add(time.Hour) // the stamp of a restart in the second of sv's start
	up     = supervise.Status{Since: ago, PID: 4711, State: supervise.Run, Up: true}
	down   = supervise.Status{Since: ago}
)

// with returns a status after a change.
func with(s supervise.Status, change func(*supervise.Status)) supervise.Status {
	change(&s)
	return s
}

func paused(s *supervise.Status)   { s.Paused = true }
func term(s *supervise.Status)     { s.Term = true }
func wantDown(s *supervise.Status) { s.Up = false }
func wantUp(s *supervise.Status)   { s.Up = true }
func now(s *supervise.Status)      { s.Since = time.Time{} }

func stopping(s supervise.Status) supervise.Status { return with(with(s, term), wantDown) }

type answers map[byte]supervise.Status

var svRows = []svRow{
	// status
	{args: "status", status: up, out: "run: D: (pid 4711) Ns"},
	{args: "status", status: up, prep: "down", out: "run: D: (pid 4711) Ns, normally down"},
	{args: "status", status: down, out: "down: D: Ns, normally up"},
	{args: "status", status: down, prep: "down", out: "down: D: Ns"},
	{args: "status", status: with(down, wantUp), out: "down: D: Ns, normally up, want up"},
	{args: "status", status: with(up, func(s *supervise.Status) { s.State = supervise.Finish }), out: "finish: D: (pid 4711) Ns"},
	{args: "status", status: with(stopping(up), paused), out: "run: D: (pid 4711) Ns, paused, want down, got TERM"},
	{args: "status", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	// up, start
	{args: "up", status: up},
	{args: "up", status: down, wrote: "u"},
	{args: "-v up", status: down, answer: answers{'u': up}, wrote: "u", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 -v up", status: down, prep: "check1", answer: answers{'u': up}, wrote: "u", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "start", status: down, answer: answers{'u': up}, wrote: "u", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 start", status: down, wrote: "u", code: 1, out: "timeout: down: D: Ns, normally up"},
	{args: "-w1 start", status: down, prep: "check1", answer: answers{'u': up}, wrote: "u", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "start", status: down, prep: "check0", answer: answers{'u': up}, wrote: "u", out: "ok: run: D: (pid 4711) Ns"},
	{args: "start", status: up, out: "ok: run: D: (pid 4711) Ns"},
	{args: "start", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	// down, stop
	{args: "down", status: up, wrote: "d"},
	{args: "down", status: stopping(up)},
	{args: "-w1 -v down", status: up, answer: answers{'d': with(up, func(s *supervise.Status) { *s = stopping(up); s.State = supervise.Finish })}, wrote: "d", code: 1, out: "timeout: finish: D: (pid 4711) Ns, want down, got TERM"},
	{args: "stop", status: up, answer: answers{'d': down}, wrote: "d", out: "ok: down: D: Ns, normally up"},
	{args: "-w1 stop", status: up, answer: answers{'d': stopping(up)}, wrote: "d", code: 1, out: "timeout: run: D: (pid 4711) Ns, want down, got TERM"},
	{args: "stop", status: down, wrote: "d", out: "ok: down: D: Ns, normally up"},
	{args: "stop", status: with(up, wantDown), answer: answers{'d': down}, wrote: "d", out: "ok: down: D: Ns, normally up"},
	{args: "stop", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	{args: "-w1 force-stop", status: up, answer: answers{'d': stopping(up)}, wrote: "dk", code: 1, out: "kill: run: D: (pid 4711) Ns, want down, got TERM"},
	{args: "force-stop", status: up, answer: answers{'d': down}, wrote: "d", out: "ok: down: D: Ns, normally up"},
	{args: "force-stop", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	// once
	{args: "once", status: up, wrote: "o"},
	{args: "once", status: down, wrote: "o"},
	{args: "-v once", status: up, answer: answers{'o': with(up, wantDown)}, wrote: "o", out: "ok: run: D: (pid 4711) Ns, want down"},
	{args: "-w1 -v once", status: down, wrote: "o", code: 1, out: "timeout: down: D: Ns, normally up"},
	{args: "-w1 -v once", status: up, wrote: "o", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "-v once", status: up, prep: "check1", answer: answers{'o': with(up, wantDown)}, wrote: "o", out: "ok: run: D: (pid 4711) Ns, want down"},
	// signals
	{args: "-v pause", status: up, answer: answers{'p': with(up, paused)}, wrote: "p", out: "ok: run: D: (pid 4711) Ns, paused"},
	{args: "-v pause", status: down, wrote: "p", out: "ok: down: D: Ns, normally up"},
	{args: "-w1 -v pause", status: up, wrote: "p", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "-v pause", status: up, prep: "check1", answer: answers{'p': with(up, paused)}, wrote: "p", out: "ok: run: D: (pid 4711) Ns, paused"},
	{args: "-v cont", status: with(up, paused), answer: answers{'c': up}, wrote: "c", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-v cont", status: down, wrote: "c", out: "ok: down: D: Ns, normally up"},
	{args: "hup", status: up, wrote: "h"},
	{args: "hup", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	{args: "-v hup", status: up, wrote: "h", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-v hup", status: up, prep: "check1", wrote: "h", out: "ok: run: D: (pid 4711) Ns"},
	{args: "alarm", status: up, wrote: "a"},
	{args: "interrupt", status: up, wrote: "i"},
	{args: "quit", status: up, wrote: "q"},
	{args: "1", status: up, wrote: "1"},
	{args: "2", status: up, wrote: "2"},
	{args: "term", status: up, wrote: "t"},
	{args: "-v term", status: up, answer: answers{'t': with(up, now)}, wrote: "t", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 -v term", status: up, answer: answers{'t': with(with(up, now), term)}, wrote: "t", code: 1, out: "timeout: run: D: (pid 4711) Ns, got TERM"},
	{args: "-v term", status: up, answer: answers{'t': with(down, now)}, wrote: "t", out: "ok: down: D: Ns, normally up"},
	{args: "-v term", status: down, wrote: "t", out: "ok: down: D: Ns, normally up"},
	{args: "-w1 -v term", status: up, prep: "check1", answer: answers{'t': with(up, now)}, wrote: "t", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "kill", status: up, wrote: "k"},
	{args: "-v kill", status: up, answer: answers{'k': with(up, now)}, wrote: "k", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 -v kill", status: up, wrote: "k", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "-v kill", status: up, answer: answers{'k': with(down, now)}, wrote: "k", out: "ok: down: D: Ns, normally up"},
	{args: "-v kill", status: down, wrote: "k", out: "ok: down: D: Ns, normally up"},
	// restart, reload
	{args: "-w1 restart", status: up, answer: answers{'u': with(down, now)}, wrote: "tcu", code: 1, out: "timeout: down: D: Ns, normally up"},
	{args: "-w1 restart", status: up, prep: "check1", answer: answers{'u': with(up, now)}, wrote: "tcu", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "restart", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	{args: "restart", status: up, answer: answers{'u': with(up, now)}, wrote: "tcu", out: "ok: run: D: (pid 4711) Ns"},
	{args: "restart", status: with(up, func(s *supervise.Status) { s.Since = future }), wrote: "tcu", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 restart", status: up, wrote: "tcu", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "-w1 try-restart", status: up, wrote: "tc", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "try-restart", status: down, wrote: "tc", out: "ok: down: D: Ns, normally up"},
	{args: "try-restart", status: up, answer: answers{'t': with(up, now)}, wrote: "tc", out: "ok: run: D: (pid 4711) Ns"},
	{args: "reload", status: down, wrote: "h", out: "ok: down: D: Ns, normally up"},
	{args: "reload", status: up, prep: "check1", wrote: "h", out: "ok: run: D: (pid 4711) Ns"},
	{args: "reload", status: up, wrote: "h", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 force-reload", status: up, wrote: "tck", code: 1, out: "kill: run: D: (pid 4711) Ns"},
	{args: "force-reload", status: up, answer: answers{'t': with(up, now)}, wrote: "tc", out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 force-restart", status: up, answer: answers{'t': with(up, term)}, wrote: "tcuk", code: 1, out: "kill: run: D: (pid 4711) Ns, got TERM"},
	// exit
	{args: "exit", status: up, wrote: "x"},
	{args: "exit", status: up, prep: "closed", out: "ok: D: runsv not running"},
	{args: "-v -w1 exit", status: up, wrote: "x", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "-w1 shutdown", status: up, wrote: "x", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "shutdown", status: up, answer: answers{'x': {Exit: true}}, wrote: "x", out: "ok: D: runsv not running"},
	{args: "shutdown", status: up, prep: "closed", out: "ok: D: runsv not running"},
	{args: "-w1 force-shutdown", status: up, wrote: "xk", code: 1, out: "kill: run: D: (pid 4711) Ns"},
	// check
	{args: "check", status: with(down, wantUp), prep: "check1", out: "ok: down: D: Ns, normally up, want up"},
	{args: "check", status: down, prep: "check1", out: "ok: down: D: Ns, normally up"},
	{args: "check", status: up, prep: "closed", code: 1, out: "fail: D: runsv not running"},
	{args: "check", status: up, out: "ok: run: D: (pid 4711) Ns"},
	{args: "-w1 check", status: up, prep: "check1", code: 1, out: "timeout: run: D: (pid 4711) Ns"},
	{args: "check", status: down, out: "ok: down: D: Ns, normally up"},
	{args: "check", status: with(down, wantUp), out: "ok: down: D: Ns, normally up, want up"},
	// usage
	{args: "frob", status: up, code: 100},
	{args: "", status: up, code: 100},
}

// sv of runit on a directory of ours: what it writes, its exit code and its words,
// for each row of section 11 of the specification. All run at the same time,
// because sv looks each 420 ms.
func TestSV(t *testing.T) {
	t.Parallel()
	sv := preforktest.NeedCommand(t, "sv", installRunit)
	var wg sync.WaitGroup
	for _, row := range svRows {
		f := newFake(t, row.status, row.answer)
		switch row.prep {
		case "down":
			must(t, os.WriteFile(f.dir+"/down", nil, 0o644))
		case "closed":
			must(t, f.d.Close())
		case "check0":
			script(t, f.dir+"/check", "exit 0")
		case "check1":
			script(t, f.dir+"/check", "exit 1")
		}
		wg.Go(func() {
			code, out := f.run(t, []string{"SVWAIT=10"}, append(append([]string{sv}, strings.Fields(row.args)...), f.dir)...)
			if code != row.code || out != row.out && row.code != 100 {
				t.Errorf("sv %s of %q: exit %d, %q, want %d, %q", row.args, row.status, code, out, row.code, row.out)
			}
			if wrote := f.commands(t); wrote != row.wrote {
				t.Errorf("sv %s of %q wrote %q, want %q", row.args, row.status, wrote, row.wrote)
			}
		})
	}
	wg.Wait()
}

// Calls of sv that reach no service, and sv as a link in init.d, whose exit codes
// are those of the LSB.
func TestSVElsewhere(t *testing.T) {
	t.Parallel()
	sv := preforktest.NeedCommand(t, "sv", installRunit)
	base := t.TempDir()
	must(t, os.Mkdir(base+"/plain", 0o755))
	must(t, os.Mkdir(base+"/init.d", 0o755))
	services := map[string]supervise.Status{"up": up, "down": down, "stuck": down, "gone": up}
	for name, s := range services {
		f := newFake(t, s, nil)
		must(t, os.Symlink(f.dir, base+"/"+name))
		must(t, os.Symlink(sv, base+"/init.d/"+name))
		if name == "gone" {
			must(t, f.d.Close())
		}
	}
	const warning = "warning: plain: unable to open supervise/ok: file does not exist"
	const fail = "fail: none: unable to change to service directory: file does not exist"
	for _, row := range []struct {
		args string
		code int
		out  string // part of it
	}{
		{"sv", 100, "usage"},
		{"sv up", 100, "usage"},
		{"sv up none", 1, fail},
		{"sv up plain", 1, warning},
		{"sv status none plain up", 2, warning},
		{"sv -v up none plain", 2, fail},
		{"sv status up down", 0, "run: up: (pid 4711) Ns\ndown: down: Ns, normally up"},
		{"init.d/up status", 0, "run: up: (pid 4711) Ns"},
		{"init.d/down status", 3, "down: down: Ns"},
		{"init.d/gone status", 1, "fail: gone: runsv not running"},
		{"init.d/stuck start", 1, "timeout: down: stuck: Ns"},
		{"init.d/up frob", 2, "usage"},
	} {
		words := strings.Fields(row.args)
		cmd := exec.Command(sv, words[1:]...)
		cmd.Dir = base
		if words[0] != "sv" {
			cmd.Path = base + "/" + words[0]
		}
		cmd.Args[0] = words[0]
		cmd.Env = append(os.Environ(), "SVDIR="+base, "SVWAIT=1")
		b, _ := cmd.CombinedOutput()
		out := seconds.ReplaceAllString(strings.ReplaceAll(string(b), base+"/", ""), "Ns")
		if cmd.ProcessState.ExitCode() != row.code || !strings.Contains(out, row.out) {
			t.Errorf("%s: exit %d, %q, want %d, %q", row.args, cmd.ProcessState.ExitCode(), out, row.code, row.out)
		}
	}
}

// The status of a service with a log has both in one line.
func TestSVLog(t *testing.T) {
	sv := preforktest.NeedCommand(t, "sv", installRunit)
	f := newFake(t, up, nil)
	must(t, os.Mkdir(f.dir+"/log", 0o755))
	log := open(t, f.dir+"/log")
	must(t, log.Write(with(up, func(s *supervise.Status) { s.PID = 4712 })))
	code, out := f.run(t, nil, sv, "status", f.dir)
	if code != 0 || out != "run: D: (pid 4711) Ns; run: log: (pid 4712) Ns" {
		t.Errorf("exit %d, %q", code, out)
	}
}

// svok, svstat and svc of daemontools.
func TestDaemontools(t *testing.T) {
	for _, name := range []string{"svok", "svstat", "svc"} {
		preforktest.NeedCommand(t, name, installDaemontools)
	}
	for _, row := range []struct {
		args   string
		status supervise.Status
		closed bool
		wrote  string
		code   int
		out    string
	}{
		{args: "svok", status: up},
		{args: "svok", status: up, closed: true, code: 100},
		{args: "svstat", status: up, out: "D: up (pid 4711) N seconds"},
		{args: "svstat", status: with(up, paused), out: "D: up (pid 4711) N seconds, paused"},
		{args: "svstat", status: with(up, wantDown), out: "D: up (pid 4711) N seconds, want down"},
		{args: "svstat", status: down, out: "D: down N seconds, normally up"},
		{args: "svstat", status: with(down, wantUp), out: "D: down N seconds, normally up, want up"},
		{args: "svstat", status: up, closed: true, out: "D: supervise not running"},
		{args: "svc -udopchaitkx", status: up, wrote: "udopchaitkx"},
		{args: "svc -d", status: up, wrote: "d"},
		{args: "svc -d", status: up, closed: true, out: "svc: warning: unable to control D: supervise not running"},
	} {
		f := newFake(t, row.status, nil)
		if row.closed {
			must(t, f.d.Close())
		}
		code, out := f.run(t, nil, append(strings.Fields(row.args), f.dir)...)
		out = regexp.MustCompile(`\d+ seconds`).ReplaceAllString(out, "N seconds")
		if code != row.code || out != row.out {
			t.Errorf("%s of %q: exit %d, %q, want %d, %q", row.args, row.status, code, out, row.code, row.out)
		}
		if wrote := f.commands(t); wrote != row.wrote {
			t.Errorf("%s of %q wrote %q, want %q", row.args, row.status, wrote, row.wrote)
		}
	}
}

// The line of prefork sv for a service is that of sv, in all states.
func TestLine(t *testing.T) {
	sv := preforktest.NeedCommand(t, "sv", installRunit)
	args, want := []string{"status"}, ""
	for i := range 48 {
		bit := func(n int) bool { return i&n != 0 }
		s := supervise.Status{Since: ago, State: supervise.State(i / 16), Paused: bit(1), Up: bit(2), Term: bit(4)}
		shown := client.Service{State: s.State.String(), Since: ago, Paused: s.Paused, Term: s.Term, Want: client.WantDown, NormallyUp: !bit(8)}
		if s.State != supervise.Down {
			s.PID, shown.PID = 4711, 4711
		}
		if s.Up {
			shown.Want = client.WantUp
		}
		f := newFake(t, s, nil)
		if bit(8) {
			must(t, supervise.SetDown(f.dir, true))
		}
		args = append(args, f.dir)
		want += shown.Line(f.dir, time.Now()) + "\n"
	}
	out, err := exec.Command(sv, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mask := func(text string) []string { return strings.Split(seconds.ReplaceAllString(text, "Ns"), "\n") }
	got := mask(string(out))
	for i, line := range mask(want) {
		if line != got[min(i, len(got)-1)] {
			t.Errorf("%q, and sv says %q", line, got[min(i, len(got)-1)])
		}
	}
}
