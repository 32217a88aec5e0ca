//go:build unix

package supervise_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

const (
	installRunit       = "Debian: apt-get install runit"
	installDaemontools = "Debian: apt-get install daemontools"
)

// timeout only ends a test that hangs.
const timeout = 30 * time.Second

// script writes an executable shell script.
func script(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// A live is a service directory with a real runsv. Its run ignores TERM, and its
// run and finish end when the test lets them.
type live struct {
	t       testing.TB
	dir     string
	watcher *fsnotify.Watcher
	cmd     *exec.Cmd
	next    *os.File // the FIFO that run and finish read
	ready   *os.File // the FIFO that run writes once it ignores TERM
}

func newLive(t testing.TB) *live {
	t.Helper()
	l := &live{t: t, dir: t.TempDir()}
	script(t, l.dir+"/run", "trap '' TERM\necho >ready\nread x <next")
	script(t, l.dir+"/finish", "read x <next")
	must(t, os.WriteFile(l.dir+"/down", nil, 0o644))
	must(t, os.Mkdir(l.dir+"/supervise", 0o700))
	fifo := func(name string) *os.File {
		must(t, syscall.Mkfifo(l.dir+"/"+name, 0o600))
		f, err := os.OpenFile(l.dir+"/"+name, os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	l.next, l.ready = fifo("next"), fifo("ready")
	var err error
	l.watcher, err = fsnotify.NewWatcher()
	must(t, err)
	must(t, l.watcher.Add(l.dir+"/supervise"))
	l.cmd = exec.Command(preforktest.NeedCommand(t, "runsv", installRunit), l.dir)
	must(t, l.cmd.Start())
	t.Cleanup(func() {
		if l.cmd.ProcessState == nil { // the test has failed: what it started ends
			l.cmd.Process.Kill()
			io.WriteString(l.next, "\n\n\n\n")
			l.cmd.Wait()
		}
		l.watcher.Close()
	})
	return l
}

// wait returns the status once runsv has written one with this stat. It renames
// status last. It writes two at the start of finish, the first without a pid.
func (l *live) wait(stat string) supervise.Status {
	l.t.Helper()
	end := time.After(timeout)
	for {
		var s supervise.Status
		b, err := os.ReadFile(l.dir + "/supervise/status")
		if err == nil {
			must(l.t, s.UnmarshalBinary(b))
			s.Exit = strings.HasSuffix(stat, "want exit")
			if s.String() == stat && (s.PID != 0) == (s.State != supervise.Down) {
				return s
			}
		}
		select {
		case <-l.watcher.Events:
		case err := <-l.watcher.Errors:
			l.t.Fatal(err)
		case <-end:
			l.t.Fatalf("runsv says %v, %v, not %q", s, err, stat)
		}
	}
}

// What runsv writes in each state is what a Dir writes for the same status, byte
// for byte.
func TestAsRunsv(t *testing.T) {
	t.Parallel() // runsv sleeps for a second after each short life
	l := newLive(t)
	ours := t.TempDir()
	d := open(t, ours)
	const end = "\n" // ends run, or finish
	for _, step := range []struct {
		do, stat string
		start    bool
	}{
		{do: "", stat: "down"},
		{do: "u", stat: "run", start: true},
		{do: "p", stat: "run, paused"},
		{do: "c", stat: "run"},
		{do: "o", stat: "run, want down"},
		{do: "u", stat: "run"},
		{do: "t", stat: "run, got TERM"},
		{do: "d", stat: "run, got TERM, want down"},
		{do: "u", stat: "run, got TERM"},
		{do: end, stat: "finish"},
		{do: "d", stat: "finish, want down"},
		{do: end, stat: "down"},
		{do: "u", stat: "run", start: true},
		{do: "x", stat: "run, got TERM, want exit"},
		{do: end, stat: "finish, want exit"},
		{do: end, stat: "down"},
	} {
		switch step.do {
		case "":
		case end:
			io.WriteString(l.next, end)
		default:
			say(t, l.dir, step.do)
		}
		s := l.wait(step.stat)
		if step.start {
			_, err := l.ready.Read(make([]byte, 1))
			must(t, err)
		}
		must(t, d.Write(s))
		for _, name := range []string{"pid", "stat", "status"} {
			if got, want := read(t, ours+"/supervise/"+name), read(t, l.dir+"/supervise/"+name); got != want {
				t.Errorf("%q: %s is %q, that of runsv %q", step.stat, name, got, want)
			}
		}
		if age := time.Since(s.Since); age < 0 || age > timeout {
			t.Errorf("%q: since %v", step.stat, s.Since)
		}
	}
	must(t, l.cmd.Wait())
	got, want := modes(t, ours+"/supervise"), modes(t, l.dir+"/supervise")
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s: %v, that of runsv %v", name, got[name], mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("files %v, those of runsv %v", got, want)
	}
}

// A runsv and a Dir do not hold one directory at the same time.
func TestLockWithRunsv(t *testing.T) {
	l := newLive(t)
	l.wait("down")
	_, err := supervise.Open(l.dir)
	var locked *supervise.LockedError
	if !errors.As(err, &locked) || locked.PID != l.cmd.Process.Pid && locked.PID != 0 {
		t.Errorf("Open beside runsv, process %d: %v", l.cmd.Process.Pid, err)
	}
	say(t, l.dir, "x")
	must(t, l.cmd.Wait())
	open(t, l.dir)
	before := modes(t, l.dir+"/supervise")
	out, err := exec.Command(l.cmd.Path, l.dir).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 111 || !strings.Contains(string(out), "unable to lock supervise/lock") {
		t.Errorf("runsv beside a Dir: %v, %q", err, out)
	}
	if after := modes(t, l.dir+"/supervise"); len(after) != len(before) {
		t.Errorf("files %v, then %v", before, after)
	}
}
