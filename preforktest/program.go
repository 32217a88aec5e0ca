package preforktest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A Program is a program that a test runs, together with the processes that it starts in turn. It is made by New,
// Command or Start. Before its Start no other method may be called. Methods that can fail the test are for the test's own
// goroutine; Lines, PID and Descendants may be called from any.
type Program struct {
	// Cmd may be changed until Start: its Env (which is filled in, so that variables can be appended), Dir, Stdin,
	// ExtraFiles, SysProcAttr. It may also be replaced, to start the program through another one (env, strace,
	// start_server). A Stdout or Stderr set here is not part of the Program's output. It and Stdin should be an *os.File:
	// with another reader or writer the Program only counts as ended when everything is copied.
	Cmd *exec.Cmd

	t    testing.TB
	name string // in messages
	part string // the name that Main knows, or "" for an arbitrary command
	id   string // value of idVar in the program's environment
	output

	first   bool          // AsInit was called
	done    chan struct{} // closed when the program has been waited for; Cmd.ProcessState is valid from then on
	grace   time.Duration // leakWait: what orphans may take to go
	drain   time.Duration // leakWait: what the output may take to end when all are gone
	stopped atomic.Bool
}

var lastID atomic.Uint64

// New returns a Program, not yet started, that is the test binary in the part that Main was given under this name.
// It fails the test if there is none.
func New(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	if err := useProgram(name); err != nil {
		t.Fatalf("preforktest: program %q: %v", name, err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatalf("preforktest: program %q: %v", name, err)
	}
	p := Command(t, exec.Command(path, args...))
	p.name, p.part = name, name
	return p
}

// Command returns a Program, not yet started, that is an arbitrary command.
func Command(t testing.TB, cmd *exec.Cmd) *Program {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	return &Program{
		Cmd:    cmd,
		t:      t,
		name:   filepath.Base(cmd.Path),
		id:     fmt.Sprintf("%d.%d.%x", os.Getpid(), lastID.Add(1), rand.Uint64()),
		output: output{changed: make(chan struct{})},
		done:   make(chan struct{}),
		grace:  leakWait,
		drain:  leakWait,
	}
}

// Start starts the program that Main was given under this name: New and Program.Start in one.
func Start(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	return New(t, name, args...).Start()
}

// Start starts the program and returns p. It fails the test if that is not possible. When the test ends, Stop is
// called.
//
// Stdout and stderr are one pipe, so that their lines are in the order in which they were written. The environment
// gets atexit_sleep_ms=0 in GORACE, as otherwise every program built with -race takes a second to exit.
func (p *Program) Start() *Program {
	p.t.Helper()
	if os.Getenv(idVar) != "" {
		// The test could be a child of itself.
		p.t.Fatalf("preforktest: %s is set: a test that a Program runs may not start Programs", idVar)
	}
	if p.source != nil {
		p.t.Fatalf("preforktest: %s: Start was called before", p)
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatalf("preforktest: %s: %v", p.name, err)
	}
	p.prepare(w)
	p.attach(r)
	err = p.launch()
	w.Close()
	if err != nil {
		r.Close()
		if p.first && errors.Is(err, fs.ErrPermission) {
			p.t.Skipf("preforktest: %s: PID namespaces are not permitted here: run as root: %v", p.name, err)
		}
		p.t.Fatalf("preforktest: %s: %v", p.name, err)
	}
	go p.read()
	p.t.Cleanup(p.Stop)
	return p
}

// AsInit has the program be the first process of a PID namespace, with a /proc of its own, as in a container: it is process 1
// there, adopts orphans, and all that is left in the namespace is killed when it ends. PID is its id here, outside. It is
// called before Start, and skips the test where namespaces are not to be had, at the latest in Start. It needs Linux, a shell,
// and the command mount. It returns p.
func (p *Program) AsInit() *Program {
	p.t.Helper()
	if err := p.asInit(); err != nil {
		p.t.Skipf("preforktest: %s: %v", p.name, err)
	}
	p.first = true
	return p
}

// prepare completes Cmd.
func (p *Program) prepare(w *os.File) {
	if p.Cmd.Stdout == nil {
		p.Cmd.Stdout = w
	}
	if p.Cmd.Stderr == nil {
		p.Cmd.Stderr = w
	}
	env := p.Cmd.Environ()
	gorace := ""
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "GORACE="); ok {
			gorace = value + " "
		}
	}
	env = append(env, "GORACE="+gorace+"atexit_sleep_ms=0", idVar+"="+p.id)
	if p.part != "" {
		env = append(env, programVar+"="+p.part)
	}
	p.Cmd.Env = env
	dieWithParent(p.Cmd)
}

// launch starts the command, and waits for it in the goroutine that started it: the kernel sends the parent-death
// signal when the thread that forked ends, so that thread must be kept for as long as the program lives.
func (p *Program) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.Cmd.Start()
		started <- err
		if err == nil {
			p.Cmd.Wait() // its error says nothing that ProcessState does not
			close(p.done)
		}
	}()
	return <-started
}

// PID returns the process id of the program, which is waited for as soon as it ends: after that the id may be that of
// another process.
func (p *Program) PID() int { return p.Cmd.Process.Pid }

// Signal sends sig to the program, but not to the processes that it started. It fails the test if the program has
// ended. It never reaches a later process with the same id.
func (p *Program) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.fatalf("signal %v: %v", sig, err)
	}
}

// Kill kills the program, but not the processes that it started. It does not wait, and does nothing if the program has
// ended.
func (p *Program) Kill() {
	p.t.Helper()
	if err := p.Cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.fatalf("kill: %v", err)
	}
}

// Wait waits for the end of the program. Processes that it started may live on, and what was written last may not have
// been read yet: WaitGone waits for both. Wait fails the test if the program does not end.
func (p *Program) Wait() *os.ProcessState {
	p.t.Helper()
	if !p.waitDone(waitLimit(p.t)) {
		p.fatalf("it has not ended")
	}
	return p.Cmd.ProcessState
}

func (p *Program) waitDone(limit time.Duration) bool { return waitClosed(p.done, limit) }

func (p *Program) hasEnded() bool { return p.waitDone(0) }

// WaitGone waits until the output is at its end, which is when no process holds it any more: the program and all that it
// started have ended, or have closed both stdout and stderr. It returns the time at which that was noticed. It fails
// the test if it does not happen.
func (p *Program) WaitGone() time.Time {
	p.t.Helper()
	if !waitClosed(p.eof, waitLimit(p.t)) {
		p.fatalf("its output is still open%s", p.whoIsLeft())
	}
	return p.eofTime
}

// whoIsLeft is for messages.
func (p *Program) whoIsLeft() string {
	left, err := p.Descendants()
	if err != nil || len(left) == 0 {
		return ""
	}
	return ", left are:" + list(left)
}

// Descendants returns the live processes that the program has started, or that those have: all that carry the
// environment which it was given, or hold its output open for writing. Neither the program itself nor zombies are among
// them. Of processes that this one may not look into, those of other users, nothing is known. The result is as
// good as /proc: a process that starts or ends meanwhile may be in it or not. It needs Linux.
func (p *Program) Descendants() ([]Proc, error) {
	return processes(func(pid int) bool {
		return pid != os.Getpid() && (p.hasEnded() || pid != p.PID()) && p.owns(pid)
	})
}

func (p *Program) owns(pid int) bool { return carries(pid, idVar+"="+p.id) || holdsPipe(pid, p.pipe) }

// Stop ends what is left of the program, and is called when the test ends.
//
// If the program is still running, it and its Descendants are killed. If it has ended, no Descendant may be left: those
// that are there are reported by t.Errorf, and then killed. After a program that a signal killed, which could not look
// after them, they are given 10 seconds to go first. Where Descendants is not supported, it is an error that the output is
// still open after so long.
//
// If the test has failed, the output is logged. Only the first call does anything.
func (p *Program) Stop() {
	p.t.Helper()
	if !p.stopped.Swap(true) {
		p.stop()
	}
}

func (p *Program) stop() {
	p.t.Helper()
	ended := p.hasEnded()
	if !ended {
		p.Cmd.Process.Kill() // it fails if the program has ended just now: its state will tell
		if !p.waitDone(fatalWait) {
			p.t.Errorf("preforktest: %s: it cannot be killed", p)
		}
	}
	if ended || p.hasEnded() && !killed(p.Cmd.ProcessState) {
		p.reportLeft()
	}
	p.killLeft()
	if !waitClosed(p.eof, p.drain) {
		p.t.Errorf("preforktest: %s: its output is held open by a process that cannot be found or ended", p)
	}
	p.source.Close()
	<-p.eof
	if p.t.Failed() {
		p.t.Logf("preforktest: %s: %s", p, p.transcript())
	}
}

// killed tells whether SIGKILL ended the process: only then can it have been running when Stop killed it.
func killed(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return runtime.GOOS == "windows" || ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// reportLeft fails the test if the program has left processes behind.
func (p *Program) reportLeft() {
	p.t.Helper()
	if status, ok := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		poll(p.grace, func() bool {
			left, err := p.Descendants()
			return err != nil || len(left) == 0
		})
	}
	left, err := p.Descendants()
	switch {
	case errors.Is(err, errors.ErrUnsupported): // stop waits for the end of the output instead
	case err != nil:
		p.t.Errorf("preforktest: %s: %v", p, err)
	case len(left) > 0:
		p.t.Errorf("preforktest: %s has left processes behind:%s", p, list(left))
	}
}

// killLeft kills the Descendants until there are none. Each round takes those that the victims of the last one had
// still started.
func (p *Program) killLeft() {
	p.t.Helper()
	gone := poll(leakWait, func() bool {
		left, err := p.Descendants()
		for _, proc := range left {
			p.killOne(proc.PID)
		}
		return err != nil || len(left) == 0
	})
	if !gone {
		p.t.Errorf("preforktest: %s: processes that cannot be killed%s", p, p.whoIsLeft())
	}
}

// killOne looks again after it has taken hold of the process: from then on pid cannot become that of a stranger.
func (p *Program) killOne(pid int) {
	if proc, err := os.FindProcess(pid); err == nil {
		if p.owns(pid) {
			proc.Kill()
		}
		proc.Release()
	}
}

// String returns the name and how the program fares, for messages.
func (p *Program) String() string {
	switch {
	case p.Cmd.Process == nil:
		return p.name + " (not started)"
	case p.hasEnded():
		return fmt.Sprintf("%s (pid %d, %v)", p.name, p.PID(), p.Cmd.ProcessState)
	}
	return fmt.Sprintf("%s (pid %d, running)", p.name, p.PID())
}

// fatalf fails the test. The message names the program; Stop logs its output.
func (p *Program) fatalf(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("preforktest: %s: %s", p, fmt.Sprintf(format, args...))
}

// waitClosed tells whether c was closed within limit.
func waitClosed(c <-chan struct{}, limit time.Duration) bool {
	select {
	case <-c:
		return true
	default:
	}
	if limit <= 0 {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}
