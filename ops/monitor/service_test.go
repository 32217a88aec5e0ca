//go:build unix

package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

// up is a run that writes a line, and ends by TERM.
const up = `echo up $$; exec sleep 1000`

// stubborn is one that ignores TERM.
const stubborn = `trap "" TERM; echo up $$; exec sleep 1000`

func TestStartAndRestart(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	pid := r.want(`up (\d+)`)[0]
	r.do("web", "t")
	if again := r.want(`up (\d+)`)[0]; again == pid {
		t.Errorf("pid %s again", pid)
	}
	r.do("web", "d")
	r.state("web", "down")
	r.quiet(50 * time.Millisecond)
	r.do("web", "u")
	r.want("up .*")
	r.do("web", "o")
	r.state("web", "run, want down")
	r.do("web", "k")
	r.state("web", "down")
	r.do("web", "o")
	r.want("up .*")
	r.do("web", "tx")
	preforktest.WaitFor(t, "end of the service", func() bool { return r.hasEvent(Removed, "web") })
	if st := r.status("web"); st.State != 0 || st.PID != 0 {
		t.Errorf("after x: %+v", st)
	}
	if err := r.m.Do("web", 't'); err == nil {
		t.Error("a command to a service that has ended is no error")
	}
	r.m.Rescan()
	r.want("up .*")
	if err := r.m.Do("nosuch", 't'); err == nil {
		t.Error("a command to no service is no error")
	}
}

// A service directory and a program run at once; each has what it should have.
func TestEntries(t *testing.T) {
	r := newRig(t, Config{})
	r.service("dir", `run: echo dir $0 $# "$PWD" $FROM $(readlink /proc/self/fd/0) "${SERVER_STARTER_GENERATION-none}"; exec sleep 1000`, "env/FROM: file")
	r.file("prog", "#!/bin/sh\necho prog $0 $# $(readlink /proc/self/fd/0)\nexec sleep 1000\n")
	r.start()
	got := []string{r.line(), r.line()}
	for _, want := range []string{"dir ./run 0 " + r.dir + "/dir file /dev/null none", "prog " + r.dir + "/prog 0 /dev/null"} {
		if got[0] != want && got[1] != want {
			t.Errorf("lines %q, want %q", got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "dir", "supervise", "ok")); err != nil {
		t.Error(err)
	}
	preforktest.WaitFor(t, "events", func() bool { return r.hasEvent(Added, "dir") && r.hasEvent(Added, "prog") })
}

func TestDownAndOnce(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up, "down: ")
	r.service("batch", "run: echo batch; exit 1", "restart: never")
	r.service("job", "run: echo job; test -e done", "restart: on-failure", "backoff: 0", "success: 3")
	r.start()
	r.state("web", "down")
	for jobs, batches := 0, 0; jobs < 3 || batches < 1; {
		switch r.line() {
		case "job":
			jobs++
		case "batch":
			batches++
		default:
			t.Fatal("web was started, which has a file down")
		}
	}
	r.file("job/done", "")
	if st := r.state("batch", "down"); st.Up {
		t.Errorf("batch: %+v", st)
	}
	preforktest.WaitFor(t, "end of job", func() bool { return !r.status("job").Up })
}

func TestNotificationFD(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", `run: echo up; read line <fifo; echo text >&5; echo ready; exec sleep 1000`, "notification-fd: 5")
	if err := syscall.Mkfifo(filepath.Join(r.dir, "web", "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.service("slow", "run: echo slow; exec sleep 1000", "notification-fd: 3", "timeout-ready: 20", "backoff: 0,60", "finish: echo $PREFORK_REASON")
	r.service("plain", "run: exec sleep 1000")
	r.start()
	preforktest.WaitFor(t, "plain ready", func() bool { return r.status("plain").Ready })
	for slow := 0; slow < 2; { // it is killed, and started again
		switch r.line() {
		case "ready timeout":
			slow++
		}
	}
	r.state("web", "run")
	if r.status("web").Ready {
		t.Error("ready before it said so")
	}
	f, err := os.OpenFile(filepath.Join(r.dir, "web", "fifo"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("go\n")
	f.Close()
	preforktest.WaitFor(t, "ready", func() bool { return r.status("web").Ready })
}

func TestSignals(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", `run: for s in ALRM HUP INT QUIT USR1 USR2; do trap "echo $s" $s; done; trap "echo stop; exit" WINCH; trap "echo reload" TTIN; echo up; while :; do sleep 0.01; done`,
		"down-signal: SIGWINCH", "reload-signal: ttin")
	r.start()
	r.want("up")
	for c, want := range map[string]string{"a": "ALRM", "h": "reload", "i": "INT", "q": "QUIT", "1": "USR1", "2": "USR2"} {
		r.do("web", c)
		r.want(want)
	}
	r.do("web", "p")
	pid := r.state("web", "run, paused").PID
	preforktest.WaitFor(t, "stop of the process", func() bool { return processState(pid) == "T" })
	r.do("web", "c")
	r.state("web", "run")
	preforktest.WaitFor(t, "continuation", func() bool { return processState(pid) != "T" })
	r.do("web", "p")
	preforktest.WaitFor(t, "stop of the process", func() bool { return processState(pid) == "T" })
	r.do("web", "t") // a process that is paused ends, too
	r.want("stop", "up")
}

func processState(pid int) string {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(data), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// The delays of the list follow one another from start to start, the last one
// repeats, and a command starts at once and begins the list again.
func TestBackoff(t *testing.T) {
	const unit = 80 * time.Millisecond
	r := newRig(t, Config{Backoff: []time.Duration{0, unit, 3 * unit, 12 * unit, 12 * unit, time.Hour}})
	r.file("prog", "#!/bin/sh\necho up\nexit 1\n")
	r.start()
	r.want("up", "up", "up", "up", "up", "up")
	// The log has the starts: the program prints late on a busy machine.
	starts := regexp.MustCompile(`time=(\S+) .*msg="worker starting"`).FindAllStringSubmatch(r.log.String(), -1)
	at := func(i int) time.Time {
		when, err := time.Parse(time.RFC3339Nano, starts[i][1])
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for i, n := range []time.Duration{0, 1, 3, 12, 12} {
		// The first of the two starts may have taken some time itself.
		if d := at(i + 1).Sub(at(i)); d < (n-1)*unit || d > n*unit+5*time.Second {
			t.Errorf("delay %d of %v, want %v", i, d, n*unit)
		}
	}
	preforktest.WaitFor(t, "the last wait", func() bool {
		st := r.status("prog")
		return st.Up && time.Until(st.WaitsUntil) > 50*time.Minute
	})
	r.do("prog", "u")
	r.want("up", "up", "up", "up", "up", "up")
	r.do("prog", "d")
	preforktest.WaitFor(t, "the end of the wait", func() bool {
		st := r.status("prog")
		return !st.Up && st.WaitsUntil.IsZero()
	})
}

// The tally has the last deaths, in the form of s6, before finish runs.
func TestTally(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up; test -e killed || { >killed; kill -9 $$; }; exit 3", `finish: echo $(wc -c <supervise/death_tally); echo >>ends; test $(wc -l <ends) -lt 5 || exit 125`, "backoff: 0", "max-death-tally: 3")
	r.start()
	r.want("up", "14", "up", "28", "up", "42", "up", "42", "up", "42")
	r.state("web", "down")
	st := r.status("web")
	if len(st.Tally) != 3 || st.Tally[2].Status.Code != 3 || time.Since(st.Tally[0].Time) > time.Minute {
		t.Errorf("tally %+v", st.Tally)
	}
	b := appendTally(nil, []Death{{Time: time.Unix(0x6b0b68a2-10, 0x0fbe9efb), Status: st.Tally[2].Status}})
	if string(b) != "\x40\x00\x00\x00\x6b\x0b\x68\xa2\x0f\xbe\x9e\xfb\x03\x00" {
		t.Errorf("% x", b)
	}
	if s6, err := exec.LookPath("s6-svdt"); err == nil {
		out, err := exec.Command(s6, filepath.Join(r.dir, "web")).CombinedOutput()
		if n := strings.Count(string(out), "exitcode 3"); err != nil || n != 3 {
			t.Errorf("s6-svdt: %v, %s", err, out)
		}
	}
}

// A program whose file has changed is stopped, then started; two never run at a time.
func TestProgramChanged(t *testing.T) {
	r := newRig(t, Config{})
	const program = "#!/bin/sh\nexec 2>/dev/null\ntrap 'sleep 0.1; echo gone; exit' TERM\necho up %\nwhile :; do sleep 0.01; done\n"
	r.file("prog", strings.Replace(program, "%", "1", 1))
	r.start()
	r.want("up 1")
	r.file("prog", strings.Replace(program, "%", "2", 1))
	r.change(scan.Changed, "prog")
	r.want("gone", "up 2")
	r.do("prog", "d")
	r.want("gone")
	r.change(scan.Changed, "prog")
	r.quiet(50 * time.Millisecond) // it is wanted down
	r.do("prog", "u")
	r.want("up 2")
	r.change(scan.Removed, "prog")
	r.want("gone")
	preforktest.WaitFor(t, "no service", func() bool { return len(r.m.Services()) == 0 })
	r.change(scan.Added, "prog")
	r.want("up 2")
	r.change(scan.Removed, "prog")
	r.change(scan.Added, "prog") // before it has ended
	r.want("gone", "up 2")
}

// The children of a program are stopped with it, those of a service directory only
// with flag-group.
func TestGroups(t *testing.T) {
	const children = "sleep 1000 & echo up $!; wait"
	r := newRig(t, Config{StopTimeout: 200 * time.Millisecond})
	r.file("prog", "#!/bin/sh\n"+children+"\n")
	r.start()
	child, _ := strconv.Atoi(r.want(`up (\d+)`)[0])
	r.do("prog", "d")
	gone := func(pid int) func() bool { return func() bool { return syscall.Kill(pid, 0) != nil || isZombie(pid) } }
	preforktest.WaitFor(t, "end of the child", gone(child))
	r.close()

	r = newRig(t, Config{})
	r.service("alone", "run: "+children)
	r.service("group", "run: "+children, "flag-group: ", "timeout-kill: 200")
	r.service("killed", `run: trap "" TERM; `+children+`; wait; wait`, "timeout-kill: 50", "flag-timeout-killpg: ")
	for _, name := range []string{"alone", "group", "killed"} {
		r.service(name, "down: ")
	}
	r.start()
	r.do("alone", "u")
	child, _ = strconv.Atoi(r.want(`up (\d+)`)[0])
	r.do("alone", "d")
	r.state("alone", "down")
	if gone(child)() {
		t.Error("the child of a service without flag-group was stopped")
	}
	syscall.Kill(child, syscall.SIGKILL)
	for _, name := range []string{"group", "killed"} {
		r.do(name, "u")
		child, _ = strconv.Atoi(r.want(`up (\d+)`)[0])
		r.do(name, "d")
		preforktest.WaitFor(t, "end of the child of "+name, gone(child))
	}
}

func TestInstances(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: echo up $$; exec sleep 1000", "instances: 3", "finish: echo finish")
	r.start()
	r.want("up .*", "up .*", "up .*")
	preforktest.WaitFor(t, "three", func() bool { return len(r.status("web").PIDs) == 3 })
	st := r.status("web")
	if st.PID != st.PIDs[0] { // the oldest
		t.Errorf("pid %d of %v", st.PID, st.PIDs)
	}
	syscall.Kill(st.PID, syscall.SIGKILL)
	r.want("finish", "up .*")
	r.do("web", "d")
	r.want("finish", "finish", "finish")
	r.state("web", "down")
}

// A Manager that is scaled up all the same has no second run.
func TestScaled(t *testing.T) {
	managers := make(chan *prefork.Manager, 1)
	r := newRig(t, Config{Attach: func(_ string, pm *prefork.Manager) func() {
		managers <- pm
		return nil
	}})
	r.service("web", "run: "+up)
	r.start()
	r.want("up .*")
	pm := <-managers
	pm.SetMaxWorkers(2)
	if err := pm.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.do("web", "t")
	r.want("up .*")
	if st := r.status("web"); len(st.PIDs) > 1 {
		t.Errorf("%+v", st)
	}
}

// A service that this process cannot keep is tried again, and does not count as one
// that was asked to exit.
func TestFault(t *testing.T) {
	other, err := prefork.New(prefork.Config{Name: "web", Untrapped: true})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	preforktest.WaitFor(t, "the fault is reported", func() bool { return r.hasEvent(PassedOver, "web") })
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	r.do("web", "u")
	r.want("up .*")
}

// The services of a directory that cannot be read are not started: it may have a
// file down.
func TestUnread(t *testing.T) {
	if os.Geteuid() == 0 {
		preforktest.Skipf(t, "root can read every directory")
	}
	r := newRig(t, Config{})
	r.service("web", "run: "+up, "down: ")
	if err := os.Chmod(filepath.Join(r.dir, "web"), 0o300); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(r.dir, "web"), 0o700) })
	r.start()
	if st := r.m.Services(); len(st) != 1 || st[0].Problem == "" {
		t.Errorf("%+v", st)
	}
}

// A service that ends by a command x while its entry is removed and comes again runs
// again, whatever is noted first.
func TestAddedWhileItEnds(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	for range 20 {
		r.want("up .*")
		r.m.mu.Lock()
		e := r.m.entries["web"]
		u := e.svc.main
		u.command('x')
		preforktest.WaitFor(t, "end of the service", func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.sup == nil
		})
		r.m.remove("web", e, "")
		e.present = true
		r.m.start("web", e)
		r.m.mu.Unlock()
	}
	r.want("up .*")
}

// The first starts are over when each service has been started once or cannot be, and
// those that are down do not count.
func TestStarted(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Backoff: []time.Duration{time.Hour}})
	r.service("slow", "control/u: echo wait; read x <gate", "run: exec sleep 1000")
	r.service("crash", "run: exit 1", "backoff: 1h")
	r.service("lazy", "run: exec sleep 1000", "down: ")
	r.service("bad", "run: exec sleep 1000", "limits: x")
	if err := syscall.Mkfifo(filepath.Join(r.dir, "slow", "gate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.m.Started() {
		t.Error("started before Run")
	}
	r.start()
	r.want("wait")
	preforktest.WaitFor(t, "crash and bad", func() bool { return r.status("crash").Ends == 1 && r.status("bad").Problem != "" })
	if r.m.Started() {
		t.Errorf("started while a script holds up the start of one: %+v", r.m.Services())
	}
	if err := os.WriteFile(filepath.Join(r.dir, "slow", "gate"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the start", r.m.Started)
	if st := r.status("slow"); st.PID == 0 {
		t.Errorf("started without %+v", st)
	}
}

// Files that could not be written are written when that is possible, without another
// change of the service.
func TestFilesWrittenAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.service("web", "run: echo up; exec sleep 1000")
	r.start()
	r.want("up")
	dir := filepath.Join(r.dir, "web", "supervise")
	stat := func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "stat"))
		return strings.TrimSpace(string(data))
	}
	preforktest.WaitFor(t, "the file stat", func() bool { return stat() == "run" })
	files := []string{"stat.new", "status.new", "death_tally.new"}
	for _, name := range files { // stand in for a full disk
		preforktest.WaitFor(t, "a moment between two writes", func() bool { return os.MkdirAll(filepath.Join(dir, name, "x"), 0o755) == nil })
	}
	r.do("web", "k")
	r.want("up")
	r.do("web", "p")
	preforktest.WaitFor(t, "a warning", func() bool { return strings.Contains(r.log.String(), "cannot write the files of supervise") })
	for _, name := range files {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	preforktest.WaitFor(t, "the file stat", func() bool { return stat() == "run, paused" })
	preforktest.WaitFor(t, "a line", func() bool { return strings.Contains(r.log.String(), "are written again") })
	if tally, err := os.ReadFile(filepath.Join(dir, "death_tally")); len(tally) != 14 {
		t.Errorf("the tally has %d bytes, want those of one end; %v", len(tally), err)
	}
}
