//go:build unix

package monitor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

// A hang is a pretended disk: what waits for it in the directory of a service whose
// name begins with "hung" waits until it answers.
type hang struct {
	mu      sync.Mutex
	answers chan struct{} // nil while the disk does not hang
	calls   []string      // that hang; none for all
	waits   map[string]int
}

// hangs makes the disk of the services whose names begin with "hung" one that can
// hang.
func (r *rig) hangs() *hang {
	h := &hang{waits: make(map[string]int)}
	r.hang = h
	d := theDisk()
	r.m.disk = disk{
		read: func(dir string) settings {
			h.wait("read", dir)
			return d.read(dir)
		},
		isExecutable: func(path string) (bool, error) {
			h.wait("isExecutable", path)
			return d.isExecutable(path)
		},
		isThere: func(path string) bool {
			h.wait("isThere", path)
			return d.isThere(path)
		},
		write: func(u *unit) {
			h.wait("write", "/"+u.name)
			d.write(u)
		},
	}
	r.t.Cleanup(h.answer)
	return h
}

// begin makes the disk hang, for all calls or for some.
func (h *hang) begin(calls ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers, h.calls = make(chan struct{}), calls
}

// answer ends the hang.
func (h *hang) answer() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answers != nil {
		close(h.answers)
		h.answers = nil
	}
}

func (h *hang) wait(call, path string) {
	h.mu.Lock()
	answers := h.answers
	if answers == nil || !strings.Contains(path, "/hung") || len(h.calls) > 0 && !slices.Contains(h.calls, call) {
		h.mu.Unlock()
		return
	}
	h.waits[call]++
	h.mu.Unlock()
	<-answers
}

// count returns how many calls have waited.
func (h *hang) count(call string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waits[call]
}

// within fails if f does not return while the disk hangs.
func (r *rig) within(call string, f func()) {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(waitLimit):
		r.t.Fatalf("%s waits for the disk", call)
	}
}

// hung are services whose disk hangs, more than a crew has goroutines.
const hung = 6

// eachHung calls f with the names of these.
func eachHung(f func(name string)) {
	for i := range hung {
		f(fmt.Sprint("hung", i))
	}
}

// Services whose disk hangs when they come hold up nothing of the others. They are
// shown, take commands, can go and come again, and begin when the disk
// answers.
func TestStartOnADiskThatHangs(t *testing.T) {
	preforktest.NoLeaks(t)
	r := newRig(t, Config{})
	h := r.hangs()
	h.begin()
	eachHung(func(name string) { r.service(name, "run: echo "+name+"; exec sleep 1000") })
	r.service("web", "run: "+up)
	r.start()
	r.want("up .*")
	r.within("Services", func() {
		if s := r.status("hung1"); !strings.Contains(s.Problem, "still being read") || s.State != 0 || s.Since.IsZero() {
			t.Errorf("shown as %+v", s)
		}
		if r.m.Started() {
			t.Error("started while services are being read")
		}
	})
	r.within("Do", func() {
		r.do("hung3", "d")
		r.do("hung4", "d")
		r.do("hung4", "u")
		r.do("web", "t")
	})
	r.want("up .*")
	r.within("Rescan", func() { r.m.Rescan() })
	r.change(scan.Removed, "hung1")
	r.change(scan.Removed, "hung2")
	r.service("hung2", "run: echo another; exec sleep 1000")
	r.change(scan.Added, "hung2")
	h.answer()
	var got []string
	for len(got) < hung-2 {
		got = append(got, r.line())
	}
	slices.Sort(got)
	if want := []string{"another", "hung0", "hung4", "hung5"}; !slices.Equal(got, want) {
		t.Errorf("started: %q, want %q", got, want)
	}
	r.state("hung3", "down")
	if st := r.status("hung3"); st.Up {
		t.Errorf("hung3 after d: %+v", st)
	}
	if st := r.status("hung1"); st.Name != "" {
		t.Errorf("hung1 after its removal: %+v", st)
	}
	r.quiet(50 * time.Millisecond)
}

// A directory that is replaced while its disk hangs is not the one that runs.
func TestReplacedOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	h.begin("isExecutable") // of log/run: supervise is open then
	r.service("hung", "run: echo old; exec sleep 1000", "down: ")
	r.service("hungprog", "run: echo old; exec sleep 1000")
	r.start()
	preforktest.WaitFor(t, "the disk hangs", func() bool { return h.count("isExecutable") == 2 })
	for _, name := range []string{"hung", "hungprog"} {
		if err := os.Rename(r.dir+"/"+name, r.dir+"/.old"+name); err != nil {
			t.Fatal(err)
		}
		r.change(scan.Removed, name)
	}
	r.service("hung", "run: echo new; exec sleep 1000")
	r.file("hungprog", "#!/bin/sh\necho new; exec sleep 1000\n")
	r.change(scan.Added, "hung")
	r.change(scan.Added, "hungprog")
	h.answer()
	r.want("new", "new")
	preforktest.WaitFor(t, "the new directory has the files", func() bool {
		b, _ := os.ReadFile(r.dir + "/hung/supervise/stat")
		return string(b) == "run\n"
	})
	if st := r.status("hungprog"); st.Kind != Program {
		t.Errorf("%+v", st)
	}
}

// A stop waits for no service that has not begun, and none begins after it.
func TestStopWhileADiskHangs(t *testing.T) {
	for name, stop := range map[string]func(*Monitor){"Shutdown": (*Monitor).Shutdown, "Kill": (*Monitor).Kill} {
		t.Run(name, func(t *testing.T) {
			preforktest.NoLeaks(t)
			r := newRig(t, Config{})
			h := r.hangs()
			h.begin()
			eachHung(func(name string) { r.service(name, "run: echo "+name) })
			r.service("web", "run: "+up)
			r.start()
			r.want("up .*")
			r.within(name, func() { stop(r.m) })
			r.close()
			h.answer()
			preforktest.WaitFor(t, "the end of the starts", func() bool {
				return !slices.ContainsFunc(r.m.Services(), func(s Status) bool { return !s.Since.IsZero() })
			})
			r.quiet(20 * time.Millisecond)
		})
	}
}

// A scan of the directory that hangs does not keep the services from being stopped,
// and none comes after that.
func TestStopWhileTheScanHangs(t *testing.T) {
	preforktest.NoLeaks(t)
	r := newRig(t, Config{})
	r.m.patience = 10 * time.Millisecond
	answer, late := make(chan struct{}), make(chan struct{})
	r.m.watch = func(ctx context.Context, _ scan.Config, _ <-chan struct{}, f func([]scan.Change)) error {
		defer close(late)
		f([]scan.Change{r.added("web")})
		close(r.scanned)
		<-answer
		f([]scan.Change{r.added("other")})
		return ctx.Err()
	}
	r.service("web", "run: "+up)
	r.service("other", "run: "+up)
	r.start()
	r.want("up .*")
	r.m.Shutdown()
	r.close()
	close(answer)
	<-late
	if st := r.status("other"); st.Name != "" {
		t.Errorf("after the stop: %+v", st)
	}
	if !strings.Contains(r.log.String(), "does not answer") {
		t.Error("the log has nothing of it")
	}
}

// A stop that waits for the files of a service names it.
func TestStopNamesADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{StopTimeout: time.Millisecond})
	r.m.patience = 10 * time.Millisecond
	h := r.hangs()
	r.service("hung", "run: "+up)
	r.start()
	r.want("up .*")
	h.begin("write")
	r.m.Shutdown()
	preforktest.WaitFor(t, "a line", func() bool { return strings.Contains(r.log.String(), "stop waits") })
	preforktest.WaitFor(t, "end of run", func() bool { return r.status("hung").PID == 0 })
	r.m.reportWait()
	if !strings.Contains(r.log.String(), "hung (down, its files are being written)") {
		t.Error("the line does not name the service")
	}
	h.answer()
}

// A disk that hangs while services run holds up commands to these alone. They are
// shown and can be killed.
func TestCommandsOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	eachHung(func(name string) { r.service(name, "run: echo hung; exec sleep 1000", "control/t: exit 1") })
	r.service("web", "run: "+up, "finish: echo finish")
	r.start()
	for range hung + 1 {
		r.line()
	}
	h.begin()
	r.within("Do", func() { eachHung(func(name string) { r.do(name, "t") }) })
	// For one, its control script is looked for; of another, whether it has finish.
	if err := syscall.Kill(r.status("hung0").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the disk hangs", func() bool { return h.count("isExecutable") >= hung+1 })
	r.within("Services", func() { r.m.Control().Services() })
	r.within("Do", func() { r.do("web", "t") })
	r.want("finish", "up .*")
	pids := r.status("web").PIDs
	eachHung(func(name string) { pids = append(pids, r.status(name).PIDs...) })
	r.within("Kill", r.m.Kill)
	preforktest.WaitFor(t, "end of the processes", func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) == nil && !isZombie(pid) })
	})
	h.answer()
}

// The files of supervise/ that cannot be written hold up no finish, and no end, of
// other services.
func TestWriteOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	eachHung(func(name string) { r.service(name, "run: echo hung; exec sleep 1000") })
	r.service("web", "run: "+up, "finish: echo finish $(cat supervise/stat)", "log/run: exec cat")
	r.start()
	for range hung + 1 {
		r.line()
	}
	h.begin("write")
	eachHung(func(name string) { r.do(name, "p") })
	preforktest.WaitFor(t, "the disk hangs", func() bool { return h.count("write") == hung })
	r.do("web", "t")
	r.want("finish finish", "up .*")
	r.change(scan.Removed, "web")
	r.want("finish finish.*")
	preforktest.WaitFor(t, "end of web", func() bool { return r.status("web").Name == "" })
	if _, err := os.Stat(r.dir + "/hung0/supervise/stat"); err != nil {
		t.Error(err)
	}
	h.answer()
	preforktest.WaitFor(t, "the last state", func() bool {
		b, _ := os.ReadFile(r.dir + "/hung0/supervise/stat")
		return string(b) == "run, paused\n"
	})
}
