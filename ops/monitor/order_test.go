//go:build unix

package monitor

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

// With Config.Once, services of which none is started are no reason to run on.
func TestOnceWithAllDown(t *testing.T) {
	r := newRig(t, Config{Once: true})
	r.service("web", "run: "+up, "down: ")
	r.start()
	select {
	case err := <-r.done:
		if r.done <- nil; err != nil {
			t.Error(err)
		}
	case <-time.After(waitLimit):
		t.Error("it runs on")
	}
}

// A command u after x starts a service again, also before it has ended.
func TestUpAfterExit(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	r.service("hung", "run: "+up, "down: ")
	r.start()
	r.opened()
	h.begin("write") // so that it does not end
	r.do("hung", "x")
	preforktest.WaitFor(t, "x", func() bool { return r.status("hung").Exit })
	r.do("hung", "du")
	r.quiet(20 * time.Millisecond)
	h.answer()
	r.want("up .*")
	r.do("hung", "xu")
	r.want("up .*")
	ended := func() bool { return r.status("hung").Since.IsZero() }
	r.m.mu.Lock()
	svc := r.m.entries["hung"].svc
	r.m.mu.Unlock()
	answer := make(chan struct{})
	svc.main.inbox.put(func() { <-answer })
	r.do("hung", "u") // is carried out after the end
	svc.main.command('x')
	preforktest.WaitFor(t, "the end", ended)
	close(answer)
	r.want("up .*")
	h.begin("write")
	r.do("hung", "x")
	preforktest.WaitFor(t, "x", func() bool { return r.status("hung").Exit && r.status("hung").PID == 0 })
	r.do("hung", "d") // is none to start it
	h.answer()
	preforktest.WaitFor(t, "the end", ended)
	r.quiet(20 * time.Millisecond)
	r.do("hung", "u")
	r.want("up .*")
}

// Commands for a service whose files cannot be opened at first are not lost.
func TestCommandsBeforeAFault(t *testing.T) {
	r := newRig(t, Config{})
	asked, answer, fault := make(chan struct{}), make(chan struct{}), errors.New("the disk has a fault")
	d := theDisk()
	var first sync.Once
	r.m.disk.read = func(dir string) settings {
		s := d.read(dir)
		first.Do(func() {
			close(asked)
			<-answer
			s.err, s.unread = fault, true
		})
		return s
	}
	r.hang = new(hang)
	r.service("web", "run: "+up)
	r.start()
	<-asked
	r.do("web", "d")
	close(answer)
	preforktest.WaitFor(t, "the fault", func() bool { return r.status("web").Problem == fault.Error() })
	r.m.Rescan()
	preforktest.WaitFor(t, "its begin", func() bool { return r.hasEvent(Added, "web") })
	if st := r.status("web"); st.Up {
		t.Errorf("after the command d: %+v", st)
	}
	r.quiet(20 * time.Millisecond)
}

// A service that was started by a command u is not started again when the next
// attempt would have been: a command x may have ended it since then.
func TestRetryAfterUp(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	other, err := supervise.Open(filepath.Join(r.dir, "web"))
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	preforktest.WaitFor(t, "another supervisor", func() bool { return r.status("web").Problem != "" })
	other.Close()
	r.do("web", "u")
	r.want("up .*")
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.entries["web"].retry.Stop() {
		t.Error("it will be started again")
	}
}

// A command for a service that has come again is not only for the one before it,
// which is still ending.
func TestCommandsForTheNext(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: trap 'echo term' TERM; echo old; while :; do sleep 0.01; done")
	r.start()
	r.want("old")
	if err := os.Rename(filepath.Join(r.dir, "web"), filepath.Join(r.dir, ".old")); err != nil {
		t.Fatal(err)
	}
	r.change(scan.Removed, "web")
	r.want("term")
	r.service("web", "run: echo new; exec sleep 1000")
	r.change(scan.Added, "web")
	r.do("web", "d")
	r.want("term")
	r.do("web", "k")
	preforktest.WaitFor(t, "the next one", func() bool {
		_, err := os.Stat(filepath.Join(r.dir, "web", "supervise", "ok"))
		return err == nil
	})
	r.opened()
	if st := r.status("web"); st.Up {
		t.Errorf("after the command d: %+v", st)
	}
	r.quiet(50 * time.Millisecond)
}

// Commands of supervise/control follow those that came by the Monitor before, and
// the start.
func TestOrderWithControl(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	h.begin("write")
	r.service("hung", "run: "+up)
	r.start()
	preforktest.WaitFor(t, "supervise", func() bool { return h.count("write") > 0 })
	control := filepath.Join(r.dir, "hung", "supervise", "control")
	write := func(commands string) {
		if err := os.WriteFile(control, []byte(commands), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("d")
	h.answer()
	r.opened()
	preforktest.WaitFor(t, "d", func() bool { return !r.status("hung").Up })
	r.do("hung", "u")
	r.want("up .*")
	h.begin("isExecutable")
	r.do("hung", "d")
	write("u")
	r.quiet(20 * time.Millisecond)
	h.answer()
	r.want("up .*")
}

// Do returns when its command is carried out.
func TestDoIsCarriedOut(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	do := func(command string) (returned bool) {
		begun := time.Now()
		r.do("web", command)
		return time.Since(begun) < moment // or the machine is so busy that it does not wait
	}
	checked := false
	for range 20 {
		r.state("web", "run")
		returned := do("d") // one within a start waits for the end of that
		if st := r.status("web"); returned && (st.Up || st.PID != 0 && !st.Term) {
			t.Fatalf("after d: %+v", st)
		}
		checked = checked || returned
		returned = do("u")
		if st := r.status("web"); returned && !st.Up {
			t.Fatalf("after u: %+v", st)
		}
	}
	if !checked {
		t.Error("no command was carried out in time")
	}
}
