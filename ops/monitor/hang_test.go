//go:build unix

package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

// A stop and a kill end although the disk of a service hangs, whichever call waits
// for it. The log names the service.
func TestStopEndsOnADiskThatHangs(t *testing.T) {
	for _, c := range []struct {
		name  string
		calls []string
		stop  func(*Monitor)
	}{
		{"the files, Shutdown", []string{"write"}, (*Monitor).Shutdown},
		{"the files, Kill", []string{"write"}, (*Monitor).Kill},
		{"everything, Shutdown", nil, (*Monitor).Shutdown},
		{"everything, Kill", nil, (*Monitor).Kill},
	} {
		t.Run(c.name, func(t *testing.T) {
			preforktest.NoLeaks(t)
			r := newRig(t, Config{StopTimeout: time.Millisecond})
			r.m.patience = 100 * time.Millisecond
			h := r.hangs()
			r.service("hung1", "run: "+up, "finish: echo finish")
			r.service("hung2", "run: "+up, "log/run: exec cat >/dev/null")
			r.service("hung3", "run: echo crash; exit 1", "backoff: 0")
			r.service("web", "run: "+up)
			r.start()
			r.state("hung1", "run")
			r.state("hung2", "run")
			r.state("hung2/log", "run")
			r.state("web", "run")
			h.begin(c.calls...)
			pids := []int{r.status("hung1").PID, r.status("hung2").PID, r.status("hung2").Log.PID, r.status("web").PID}
			c.stop(r.m)
			r.close()
			if line := r.log.String(); !strings.Contains(line, `services="hung1, hung2`) || strings.Contains(line, "hung2, web") {
				t.Errorf("the log does not name the services: %s", line)
			}
			for _, pid := range pids {
				preforktest.WaitFor(t, "the end of a process", func() bool { return syscall.Kill(pid, 0) != nil || isZombie(pid) })
			}
			h.answer()
			preforktest.WaitFor(t, "the end of the services", r.isOver)
		})
	}
}

// isOver reports whether no service is left.
func (r *rig) isOver() bool {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, e := range r.m.entries {
		if e.svc != nil {
			return false
		}
	}
	return true
}

// A stop waits for processes however long they take, also if the disk hangs.
func TestStopWaitsForProcesses(t *testing.T) {
	r := newRig(t, Config{})
	r.m.patience = 10 * time.Millisecond
	h := r.hangs()
	r.service("hung", "run: "+stubborn)
	r.start()
	pid := atoi(t, r.want(`up (\d+)`)[0])
	h.begin()
	r.m.Shutdown()
	preforktest.WaitFor(t, "the stop", func() bool { return r.status("hung").Term })
	time.Sleep(100 * time.Millisecond)
	select {
	case err := <-r.done:
		r.done <- err
		t.Fatal("it has ended before the process")
	default:
	}
	syscall.Kill(pid, syscall.SIGKILL)
	r.close()
	h.answer()
	preforktest.WaitFor(t, "the end of the service", r.isOver)
}

// A command waits for the look for its script no longer than for the script.
func TestCommandsWithoutScripts(t *testing.T) {
	preforktest.NoLeaks(t)
	r := newRig(t, Config{})
	r.m.patience = 10 * time.Millisecond
	h := r.hangs()
	r.service("hung", "run: "+up, "control/t: echo script; exit 1")
	r.start()
	r.want("up .*")
	r.do("hung", "t")
	r.want("script", "up .*")
	h.begin("isExecutable")
	r.do("hung", "tk")
	preforktest.WaitFor(t, "the end of run", func() bool { return r.status("hung").PID == 0 || syscall.Kill(r.status("hung").PID, 0) != nil })
	if n := strings.Count(r.log.String(), "without control scripts"); n != 1 {
		t.Errorf("%d lines, want 1\n%s", n, r.log)
	}
	h.answer()
	r.want("up .*")
	preforktest.WaitFor(t, "the end of the look", func() bool {
		r.m.mu.Lock()
		u := r.m.entries["hung"].svc.main
		r.m.mu.Unlock()
		u.mu.Lock()
		defer u.mu.Unlock()
		return !u.hung
	})
	r.do("hung", "t")
	r.want("script", "up .*")
}

// Services whose disk hangs when they come, or before their first start, do not keep
// the others from having started. The status and the log have the reason.
func TestStartedOnADiskThatHangs(t *testing.T) {
	for call, line := range map[string]string{"isExecutable": "cannot supervise a service", "read": "cannot start the service"} {
		t.Run(call, func(t *testing.T) {
			r := newRig(t, Config{})
			r.m.patience = 10 * time.Millisecond
			h := r.hangs()
			if call == "isExecutable" { // of log/run
				h.begin(call)
			} else { // after its files are open
				seen := false
				r.m.disk.read = func(dir string) settings {
					if strings.HasSuffix(dir, "/hung") {
						if seen {
							h.wait(call, dir)
						} else {
							h.begin(call)
						}
						seen = true
					}
					return theDisk().read(dir)
				}
			}
			r.service("hung", "run: echo hung; exec sleep 1000")
			r.service("web", "run: "+up)
			r.start()
			r.want("up .*")
			end := time.After(waitLimit)
			for {
				changed := r.m.Changed()
				if r.m.Started() {
					break
				}
				select {
				case <-changed:
				case <-end:
					t.Fatalf("it has not started: %+v", r.m.Services())
				}
			}
			if st := r.status("hung"); st.Problem != errDisk.Error() {
				t.Errorf("the problem is %q", st.Problem)
			}
			n := 0
			for text := range strings.Lines(r.log.String()) { // others can be slow, too
				n += count(strings.Contains(text, line) && strings.Contains(text, errDisk.Error()) && strings.Contains(text, "service=hung"))
			}
			if n != 1 {
				t.Errorf("%d lines, want 1\n%s", n, r.log)
			}
			h.answer()
			r.want("hung")
			preforktest.WaitFor(t, "no problem", func() bool { return r.status("hung").Problem == "" })
		})
	}
}

// Commands to a service whose disk hangs are bounded: the caller gets an error.
func TestBusy(t *testing.T) {
	r := newRig(t, Config{})
	r.m.patience = time.Hour
	h := r.hangs()
	r.service("hungopen", "run: "+up)
	r.service("hung", "run: "+up)
	r.service("web", "run: exec sleep 1000")
	h.begin("isExecutable")
	r.start()
	fill := func(name string) {
		t.Helper()
		refused := make(chan error, 1000)
		for range 3 * maxWaiting {
			go func() { refused <- r.m.Do(name, 'c') }()
		}
		n := 0
		for range 3 * maxWaiting {
			if err := <-refused; err != nil {
				n++
				for _, text := range []string{name, "busy", "disk", "try again"} {
					if !strings.Contains(err.Error(), text) {
						t.Fatalf("the error %q lacks %q", err, text)
					}
				}
			}
		}
		if n < 2*maxWaiting-1 || n > 2*maxWaiting {
			t.Errorf("%s: %d of %d commands were refused", name, n, 3*maxWaiting)
		}
	}
	fill("hungopen")
	r.do("web", "t")
	h.answer()
	r.want("up .*", "up .*")
	h.begin("isExecutable")
	fill("hung")
	h.answer()
	preforktest.WaitFor(t, "room for a command", func() bool { return r.m.Do("hung", 't') == nil })
	r.want("up .*")
}

// A service that is moved away and back again and again while its disk hangs is
// asked to end once.
func TestRemovedAgainOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	r.service("hung", "run: "+up)
	r.start()
	r.want("up .*")
	h.begin()
	for range 5 {
		r.change(scan.Removed, "hung")
		r.change(scan.Added, "hung")
	}
	r.m.mu.Lock()
	n := r.m.entries["hung"].svc.main.inbox.len()
	r.m.mu.Unlock()
	if n > 1 { // it may not have begun to wait for the first one
		t.Errorf("%d requests wait", n)
	}
	h.answer()
	r.want("up .*")
	r.quiet(20 * time.Millisecond)
}

// A service that was removed before its disk has answered is none: it is waited for
// by no client, and takes no command.
func TestRemovedWhileItIsRead(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	r.service("hung", "run: "+up)
	h.begin("read")
	r.start()
	if all := r.m.Services(); len(all) != 1 || r.m.Started() {
		t.Errorf("%+v, started: %t", all, r.m.Started())
	}
	r.change(scan.Removed, "hung")
	if all := r.m.Services(); len(all) != 0 || !r.m.Started() {
		t.Errorf("%+v, started: %t", all, r.m.Started())
	}
	if err := r.m.Do("hung", 'd'); err == nil || err.Error() != "there is no service hung" {
		t.Errorf("the error is %v", err)
	}
	r.change(scan.Added, "hung")
	h.answer()
	r.want("up .*") // without the command
}

// A command for a logger is not accepted before it is known that there is one.
func TestLoggerOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	r.service("hung", "run: "+up)
	r.service("hunglog", "run: exec sleep 1000", "log/run: echo log >&2; exec cat")
	h.begin("isExecutable")
	r.start()
	for _, name := range []string{"hung", "hunglog"} {
		if err := r.m.Do(name+"/log", 'd'); err == nil || !strings.Contains(err.Error(), name+" is still being read") {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	refused := make(chan error)
	go func() { refused <- r.m.Do("hung/log", 't') }()
	preforktest.WaitFor(t, "the command", func() bool {
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		return len(r.m.entries["hung"].waiting) > 0
	})
	h.answer()
	// It may have waited for too long by now.
	if err := <-refused; err == nil || !strings.Contains(err.Error(), "has no logger") && !strings.Contains(err.Error(), "still being read") {
		t.Errorf("without a logger: %v", err)
	}
	for range 2 {
		if line := r.line(); line != "log" && !strings.HasPrefix(line, "up ") {
			t.Errorf("line %q", line)
		}
	}
	r.opened()
	if err := r.m.Do("hung/log", 't'); err == nil || !strings.Contains(err.Error(), "has no logger") {
		t.Errorf("without a logger: %v", err)
	}
	r.do("hunglog/log", "d")
}

// Several clients that look at the same time see the same file down. Before it is
// known whether there is one, nothing is said of it.
func TestDownOnADiskThatHangs(t *testing.T) {
	r := newRig(t, Config{})
	h := r.hangs()
	r.service("hung", "run: "+up, "down: ")
	r.service("hungup", "run: "+up)
	r.start()
	r.want("up .*")
	r.opened()
	c := r.m.Control()
	h.begin("isThere")
	look := func() string {
		text := ""
		for _, s := range c.Services() {
			text += s.Line(s.Name, time.Now()) + "\n"
		}
		return text
	}
	lines := make(chan string)
	for range 4 {
		go func() { lines <- look() }()
	}
	for range 4 {
		if text := <-lines; strings.Contains(text, "normally") {
			t.Errorf("not known yet: %s", text)
		}
	}
	changed := c.Changed()
	h.answer()
	select {
	case <-changed:
	case <-time.After(waitLimit):
		t.Error("the answer is no change")
	}
	preforktest.WaitFor(t, "the answers", func() bool {
		r.m.downs.mu.Lock()
		defer r.m.downs.mu.Unlock()
		return len(r.m.downs.looks) == 0
	})
	if err := os.Remove(filepath.Join(r.dir, "hung", "down")); err != nil {
		t.Fatal(err)
	}
	if s := r.shown("hung", func(s *client.Service) bool { return s.NormallyUp }); s.PID != 0 {
		t.Errorf("%+v", s)
	}
}

// A second client waits for the first look, as the first client does.
func TestDownForTwoClients(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up, "down: ")
	r.start()
	r.opened()
	looks, goOn := make(chan struct{}, 10), make(chan struct{})
	isThere := r.m.disk.isThere
	r.m.disk.isThere = func(path string) bool {
		looks <- struct{}{}
		<-goOn
		return isThere(path)
	}
	dir := filepath.Join(r.dir, "web")
	found := make(chan map[string]bool)
	go func() { found <- r.m.haveDown([]string{dir}) }()
	<-looks
	go func() { found <- r.m.haveDown([]string{dir}) }()
	time.Sleep(time.Millisecond) // it is likely in its wait then
	close(goOn)
	for range 2 {
		if f := <-found; !f[dir] {
			if _, known := f[dir]; known { // otherwise it took too long
				t.Error("the file down is not seen")
			}
		}
	}
}

// The scan of the directory is reported when it hangs.
func TestScanHangs(t *testing.T) {
	r := newRig(t, Config{})
	r.start()
	since := time.Now().Add(-time.Minute)
	r.m.reportStall(since, false)
	r.m.reportStall(since, true)
	for _, text := range []string{"the directory does not answer", "the directory answers again", "dir=" + r.dir, fmt.Sprintf("since=%q", since.Format(time.DateTime)), "after=1m"} {
		if !strings.Contains(r.log.String(), text) {
			t.Errorf("the log lacks %q: %s", text, r.log)
		}
	}
}

// A rescan is carried out when a scan has begun after it and has ended.
func TestRescanIsCarriedOut(t *testing.T) {
	r := newRig(t, Config{})
	first := r.m.Rescan()
	if r.m.Rescan() != first {
		t.Error("two requests for one scan")
	}
	scanned := r.m.takeRescan()
	second := r.m.Rescan()
	scanned()
	<-first
	select {
	case <-second:
		t.Error("a request during a scan is not for that one")
	default:
	}
	r.m.takeRescan()()
	<-second
	r.m.takeRescan()() // none has asked for it
	r.start()
}
