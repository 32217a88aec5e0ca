package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/preforktest"
)

// The tests of prefork watch with processes. Numbers of cronmon, such as C13, are
// those of docs/PORTING.md.

// A watched is a running prefork watch.
type watched struct {
	*preforktest.Program
	t                  *testing.T
	base, dir, journal string
}

// newWatched returns an empty directory of services, and the place of a journal.
func newWatched(t *testing.T) *watched {
	t.Helper()
	base := t.TempDir()
	w := &watched{t: t, base: base, dir: filepath.Join(base, "services of 100%"), journal: filepath.Join(base, "journal")}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) start(flags ...string) {
	w.t.Helper()
	w.Program = preforktest.Start(w.t, "prefork", w.args(flags...)...)
}

func (w *watched) args(flags ...string) []string {
	return append(append([]string{"watch", "--control", "off", "--journal", w.journal}, flags...), w.dir)
}

// program writes a program, as an editor that renames does.
func (w *watched) program(name, script string) {
	w.t.Helper()
	next := filepath.Join(w.dir, filepath.Dir(name), "."+filepath.Base(name)+".new")
	err := os.MkdirAll(filepath.Dir(next), 0o755)
	if err == nil {
		err = os.WriteFile(next, []byte("#!/bin/sh\n"+script+"\n"), 0o755)
	}
	if err == nil {
		err = os.Rename(next, filepath.Join(w.dir, name))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// recordsOf returns the records of a type, of a service; "" for any.
func recordsOf[E any](w *watched, service string) (found []E) {
	w.t.Helper()
	for r, err := range journal.Read(w.journal) {
		if err != nil {
			w.t.Fatal(err)
		}
		if e, ok := r.Event.(E); ok && (service == "" || r.Pool == service) {
			found = append(found, e)
		}
	}
	return found
}

// stop stops it by a signal, and checks its exit status.
func (w *watched) stop(sig syscall.Signal, want int) {
	w.t.Helper()
	w.Signal(sig)
	w.expectExit(want)
}

func (w *watched) expectExit(want int) {
	w.t.Helper()
	if state := w.Wait(); state.ExitCode() != want {
		w.t.Errorf("it ended with %v, want status %d", state, want)
	}
	w.WaitGone()
}

// Programs get no arguments, /dev/null and the log; they are started, replaced and
// stopped as their files come, change and go. The journal has all of it (1, 4, 7,
// 10, 11, 12, 16, 18, 20, 22, C4, C5, C6, C7).
func TestWatchFiles(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("one", `echo "one 1: $# arguments, in $(pwd), from $(readlink /proc/self/fd/0), to $(readlink /proc/self/fd/1 | cut -c 1-4), as $0"
echo "one on stderr" >&2
exec sleep 1000`)
	if err := os.WriteFile(filepath.Join(w.dir, "notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.program(".hidden", "echo hidden")
	w.program("backup~", "echo backup")
	socket := filepath.Join(testprog.SocketDir(t), "w"+client.Suffix)
	w.start("--settle", "200ms", "--control", socket)
	cwd, _ := os.Getwd()
	w.ExpectAll(`^one\[0/\d+\] one 1: 0 arguments, in `+regexp.QuoteMeta(cwd)+`, from /dev/null, to pipe, as `+regexp.QuoteMeta(w.dir)+`/one$`, `^one\[0/\d+\] one on stderr$`, "notes.txt")

	w.program("one", "echo one 2\nexec sleep 1000")
	w.Expect(`\] one 2$`)
	if status, out, errs := command("-s", socket, "sv", "status"); status != 0 || !regexp.MustCompile(`^run: one: \(pid \d+\) \d+s\n$`).MatchString(out) {
		t.Errorf("sv status: %d, %q, %q", status, out, errs)
	}
	if status, out, errs := command("-s", socket, "status", "--pool", "one"); status != 0 || !strings.Contains(out, "ready") {
		t.Errorf("status: %d, %q, %q", status, out, errs)
	}
	w.program("two", "echo two 1\nexec sleep 1000")
	w.Expect(`\] two 1$`)
	os.Chmod(filepath.Join(w.dir, "two"), 0o644)
	w.Expect(`service=two .*pid=\d+ reason=stopped`)
	os.Chmod(filepath.Join(w.dir, "two"), 0o755)
	w.Expect(`\] two 1$`)
	os.Rename(filepath.Join(w.dir, "two"), filepath.Join(w.dir, "three"))
	w.Expect(`\] two 1$`) // as three
	os.Remove(filepath.Join(w.dir, "three"))
	w.Expect(`service=three .*pid=\d+ reason=stopped`)
	w.Signal(syscall.SIGALRM)
	w.Expect(`received=SIGALRM`)
	w.Signal(syscall.SIGUSR2)
	w.Expect(`level=WARN .*cannot be upgraded.* received=SIGUSR2`)
	w.stop(syscall.SIGTERM, 0)

	var got []string
	for r, err := range journal.Read(w.journal) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := r.Event.(type) {
		case journal.ProgramAdded, journal.ProgramChanged, journal.ProgramRemoved, journal.PassedOver, journal.Ended:
			got = append(got, strings.TrimSuffix(fmt.Sprint(e), strconv.Itoa(r.PID)))
		case prefork.ExitEvent:
			if e.Exit.Reason != prefork.ReasonStopped || e.Exit.Status.Signal != syscall.SIGTERM || e.Exit.PID == 0 {
				t.Errorf("exit of %s: %+v", r.Pool, e.Exit)
			}
		}
	}
	want := []string{
		"passed over: notes.txt (not executable)", "program added: one", "program changed: one", "program added: two",
		"service removed: two (not executable)", "program added: two", "program added: three", "service removed: two",
		"service removed: three",
	}
	slices.Sort(want)
	ended := got[len(got)-1]
	got = got[:len(got)-1]
	slices.Sort(got)
	if !slices.Equal(got, want) || !strings.HasPrefix(ended, "manager ") {
		t.Errorf("the journal has %q and %q, want %q", got, ended, want)
	}
	if n := len(recordsOf[prefork.ExitEvent](w, "one")); n != 2 {
		t.Errorf("one has ended %d times, want 2: by its change and the stop", n)
	}
}

// One process has a directory or a journal. Others exit with the status of
// --busy-exit, or wait (2, 3).
func TestWatchOne(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("web", "echo up\nexec sleep 1000")
	w.start()
	w.Expect(`\] up$`)
	already := fmt.Sprintf("already running, as process %d", w.PID())
	other := newWatched(t)
	other.journal = w.journal
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"watch", "--control", "off", w.dir}, 0},
		{w.args("--busy-exit", "9"), 9},
		{other.args("--busy-exit", "9"), 9}, // the journal alone
	} {
		p := preforktest.Start(t, "prefork", c.args...)
		p.Expect(regexp.QuoteMeta(already))
		if state := p.Wait(); state.ExitCode() != c.want {
			t.Errorf("%q: %v, want status %d", c.args, state, c.want)
		}
		p.WaitGone()
	}
	// As the crontab has it: cron sends mail with each output.
	p := preforktest.Start(t, "prefork", w.args("--quiet")...)
	if state := p.Wait(); state.ExitCode() != 0 || len(p.Lines()) != 0 {
		t.Errorf("--quiet: %v, %q", state, p.Lines())
	}
	p.WaitGone()
	// One that waits can be interrupted, and goes on when it gets the lock.
	patient := []string{"--wait"}
	impatient := preforktest.Start(t, "prefork", w.args(patient...)...)
	impatient.Expect(regexp.QuoteMeta(already))
	impatient.Signal(os.Interrupt)
	impatient.Wait()
	impatient.WaitGone()
	next := *w
	next.start(patient...)
	next.Expect(regexp.QuoteMeta(already))
	w.stop(syscall.SIGTERM, 0)
	next.Expect(`\] up$`)
	next.stop(syscall.SIGTERM, 0)
}

// A process that has rotated the journal has the lock beside it, and not that of the
// file: --wait waits for that too.
func TestWatchWaitsForJournal(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("web", "echo up\nexec sleep 1000")
	j, err := journal.Open(w.journal, journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.start("--wait")
	w.Expect(fmt.Sprintf("msg=waiting .*already running, as process %d", os.Getpid()))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	w.Expect(`\] up$`)
	w.stop(syscall.SIGTERM, 0)
}

// If another directory takes the name, its services run in the place of the others,
// and it is locked too.
func TestWatchDirReplaced(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	next := *w
	next.dir = filepath.Join(w.base, "next")
	w.program("web", "echo one\nexec sleep 1000")
	next.program("web", "echo two\nexec sleep 1000")
	w.start()
	w.Expect(`^web.* one$`)
	if err := unix.Renameat2(unix.AT_FDCWD, next.dir, unix.AT_FDCWD, w.dir, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	w.Expect(`^web.* two$`)
	p := preforktest.Start(t, "prefork", "watch", "--control", "off", w.dir)
	p.Expect(`already running, as process \d+$`)
	p.Wait()
	// One that another process watches is not taken.
	other := newWatched(t)
	other.program("web", "echo other\nexec sleep 1000")
	other.start()
	other.Expect(`^web.* other$`)
	if err := unix.Renameat2(unix.AT_FDCWD, other.dir, unix.AT_FDCWD, w.dir, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	w.ExpectAll("already running", `service=web .*reason=stopped`)
	other.Signal(syscall.SIGTERM)
	other.Wait()
	other.WaitGone()
	w.Signal(syscall.SIGHUP)
	w.Expect(`^web.* other$`)
	w.stop(syscall.SIGTERM, 0)
}

// All services are stopped at once, and killed by one deadline (5, 8, 17, C8). A
// second interrupt kills them (C14).
func TestWatchStops(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	const n = 4
	for i := range n {
		w.program(fmt.Sprintf("deaf-%d", i), "trap '' TERM\necho up\nwhile :; do sleep 1000; done")
	}
	w.start("--stop-timeout", "1s")
	w.ExpectN(n, `\] up$`)
	w.stop(os.Interrupt.(syscall.Signal), 0)
	var killed []time.Time
	for r, err := range journal.Read(w.journal) {
		if e, ok := r.Event.(prefork.StateEvent); err == nil && ok && e.Worker.State == prefork.StateKilled {
			killed = append(killed, r.Time)
		}
	}
	if len(killed) != n || killed[n-1].Sub(killed[0]) > 2*time.Second {
		t.Errorf("killed at %v: one after the other would take 1 s each", killed)
	}

	w.start("--stop-timeout", "0") // never
	w.ExpectN(n, `\] up$`)
	w.Signal(os.Interrupt)
	w.ExpectN(n, "msg=\"worker stopping\"")
	w.stop(os.Interrupt.(syscall.Signal), 0)

	w.start("--stop-timeout", "0")
	w.ExpectN(n, `\] up$`)
	w.stop(syscall.SIGQUIT, 1)
	if lines := strings.Join(w.Lines(), "\n"); !strings.Contains(lines, "prefork watch: all services were killed after SIGQUIT") {
		t.Errorf("after SIGQUIT: %s", lines)
	}
}

// A program that ends is started again after each delay of the list, of which the
// last one repeats (18, 19, C1). With --once none is (C13).
func TestWatchBackoff(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("bad", "echo x >>"+w.base+"/starts; exit 1")
	w.program("good", "exit 0")
	w.start("--backoff", "0,200ms,400ms,600ms", "--log", "none", "--log-prefix=false")
	preforktest.WaitFor(t, "starts", func() bool {
		data, _ := os.ReadFile(w.base + "/starts")
		return len(data) >= 2*7
	})
	w.stop(syscall.SIGTERM, 0)
	// A delay counts from the start before: the life of the program is part of it.
	var delays []time.Duration
	life := time.Duration(0)
	for r, err := range journal.Read(w.journal) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := r.Event.(type) {
		case prefork.ExitEvent:
			if r.Pool == "bad" {
				life = e.Exit.Uptime
			}
		case prefork.DelayEvent:
			if r.Pool == "bad" {
				delays = append(delays, e.For+life)
			}
		}
	}
	// If the program took longer than a delay, there is no event of that one.
	list := []time.Duration{200, 400, 600, 600, 600}
	for _, d := range delays {
		list = list[max(0, slices.IndexFunc(list, func(want time.Duration) bool { return d < want*time.Millisecond*11/10 })):]
	}
	if n := len(delays); n < 3 || list[0] != 600 || delays[n-1] < 580*time.Millisecond || delays[n-1] > 660*time.Millisecond || !slices.IsSortedFunc(delays, closeTo) {
		t.Errorf("delays %v: want 200 ms, 400 ms, then 600 ms", delays)
	}
	if len(recordsOf[prefork.ExitEvent](w, "good")) < 2 {
		t.Error("a program that ends well is not started again")
	}

	os.Remove(w.base + "/starts")
	w.start("--once")
	w.expectExit(0)
	if data, err := os.ReadFile(w.base + "/starts"); err != nil || len(data) != 2 {
		t.Errorf("with --once, bad was started %d times, %v", len(data)/2, err)
	}
}

// The log has a line for the start and one for the end of a program, and its
// output. The journal has the other events too.
func TestWatchLog(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("one", "echo up")
	w.program("two/run", "exit 0")
	w.start("--once")
	w.expectExit(0)
	var got []string
	for _, line := range w.Lines() {
		if strings.Contains(line, " slot=0 ") && strings.Contains(line, "service=one") {
			got = append(got, line)
		}
	}
	if len(got) != 2 || !strings.Contains(got[0], `msg="worker starting"`) || !strings.Contains(got[1], `msg="worker gone"`) {
		t.Errorf("lines of a program:\n%s", strings.Join(got, "\n"))
	}
	if all := strings.Join(w.Lines(), "\n"); !strings.Contains(all, `msg="service added" service=two`) || !strings.Contains(all, `msg="program added" service=one`) || !strings.Contains(all, "one[0/") {
		t.Errorf("log:\n%s", all)
	}
	if len(recordsOf[prefork.SettledEvent](w, "one")) == 0 {
		t.Error("the journal has not all events")
	}
}

// closeTo compares durations with a tolerance.
func closeTo(a, b time.Duration) int {
	if (a - b).Abs() < 60*time.Millisecond {
		return 0
	}
	return int(a - b)
}
