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
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A Program is a program that a test runs, and the processes that it starts.
// New, Command or the function Start makes one. No other method may be called
// before the method Start.
//
// Methods that can fail the test must be called by the test's own goroutine.
// Lines, PID and Descendants are safe for concurrent use.
type Program struct {
	// Cmd may be changed until Start, above all its Dir, Stdin, ExtraFiles,
	// SysProcAttr and Env, which is set so that variables can be appended. Cmd may
	// also be replaced, to start the program through another one such as env,
	// strace or start_server.
	//
	// A Stdout or Stderr set here is not part of the Program's output. It and
	// Stdin should be an *os.File: for another reader or writer, the Program has
	// exited only after everything is copied.
	Cmd *exec.Cmd

	t       testing.TB
	name    string // in messages
	program string // the name in the registry, or "" for a Command
	id      string // value of idVar in the program's environment
	output

	isInit      bool          // AsInit was called
	done        chan struct{} // closed after the program was reaped, when ProcessState is set
	orphanGrace time.Duration // leakTimeout: how long orphans have to exit
	outputGrace time.Duration // leakTimeout: how long the output has to end after the last kill
	stopped     atomic.Bool
}

var lastID atomic.Uint64

// New returns the registered program of this name, not yet started. It fails
// the test if there is none.
func New(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	if err := registered.use(name); err != nil {
		t.Fatalf("preforktest: program %q: %v", name, err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatalf("preforktest: program %q: %v", name, err)
	}
	p := Command(t, exec.Command(path, args...))
	p.name, p.program = name, name
	return p
}

// Command returns a Program, not yet started, that runs an arbitrary command.
func Command(t testing.TB, cmd *exec.Cmd) *Program {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	return &Program{
		Cmd:         cmd,
		t:           t,
		name:        filepath.Base(cmd.Path),
		id:          fmt.Sprintf("%d.%d.%x", os.Getpid(), lastID.Add(1), rand.Uint64()),
		output:      output{changed: make(chan struct{})},
		done:        make(chan struct{}),
		orphanGrace: leakTimeout,
		outputGrace: leakTimeout,
	}
}

// Environ returns the environment in which the test binary runs the registered
// program of this name. It is for tests of functions that start processes
// themselves, and for processes that must stay zombies; other tests should call
// Start. The test must wait for such a process: if one is left at the end, Main
// fails the run. Environ fails the test if there is no such program.
func Environ(t testing.TB, name string) []string {
	t.Helper()
	if err := registered.use(name); err != nil {
		t.Fatalf("preforktest: program %q: %v", name, err)
	}
	return append(exitAtOnce(os.Environ()), programVar+"="+name)
}

// Start calls New and then Program.Start.
func Start(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	return New(t, name, args...).Start()
}

// Start starts the program and returns p. It fails the test on an error. Stop
// is called when the test ends.
//
// Stdout and stderr are one pipe, so that their lines are in the order in which
// they were written. Start adds atexit_sleep_ms=0 to GORACE in the environment:
// without it, every program built with -race takes a second to exit.
func (p *Program) Start() *Program {
	p.t.Helper()
	if os.Getenv(idVar) != "" {
		// The test could be a child of itself.
		p.t.Fatalf("preforktest: %s is set: a test in a Program may not start Programs", idVar)
	}
	if p.source != nil {
		p.t.Fatalf("preforktest: %s: Start was called twice", p)
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
		if p.isInit && errors.Is(err, fs.ErrPermission) {
			Skipf(p.t, "preforktest: %s: PID namespaces are not permitted: run as root: %v",
				p.name, err)
		}
		p.t.Fatalf("preforktest: %s: %v", p.name, err)
	}
	go p.read()
	p.t.Cleanup(p.Stop)
	return p
}

// AsInit makes the program the first process of a PID namespace with a /proc of
// its own, as in a container, and returns p. The program is process 1 there and
// adopts orphans. When it exits, the kernel kills all other processes of the
// namespace. PID returns its id outside of the namespace.
//
// AsInit must be called before Start. AsInit or Start skips the test, as Skipf
// does, if namespaces are not available. Both need Linux, a shell and the
// command mount.
func (p *Program) AsInit() *Program {
	p.t.Helper()
	if err := p.asInit(); err != nil {
		Skipf(p.t, "preforktest: %s: %v", p.name, err)
	}
	p.isInit = true
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
	env := append(exitAtOnce(p.Cmd.Environ()), idVar+"="+p.id)
	if p.program != "" {
		env = append(env, programVar+"="+p.program)
	}
	p.Cmd.Env = env
	dieWithParent(p.Cmd)
}

// exitAtOnce adds atexit_sleep_ms=0 to GORACE.
func exitAtOnce(env []string) []string {
	value := "atexit_sleep_ms=0"
	env = slices.DeleteFunc(env, func(v string) bool {
		before, ok := strings.CutPrefix(v, "GORACE=")
		if ok {
			value = before + " atexit_sleep_ms=0"
		}
		return ok
	})
	return append(env, "GORACE="+value)
}

// launch starts the command, and reaps it in the goroutine that started it. The
// kernel sends the parent-death signal when the thread that forked exits, so
// that thread must live as long as the program.
func (p *Program) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.Cmd.Start()
		started <- err
		if err == nil {
			p.Cmd.Wait() // its error is in ProcessState
			close(p.done)
		}
	}()
	return <-started
}

// PID returns the process id of the program. The program is reaped as soon as it
// exits; after that the id may be that of another process.
func (p *Program) PID() int { return p.Cmd.Process.Pid }

// Signal sends sig to the program, but not to the processes that it started. It
// fails the test if the program has exited. It never reaches a later process
// with the same id.
func (p *Program) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.fatalf("signal %v: %v", sig, err)
	}
}

// Kill kills the program, but not the processes that it started. It does not
// wait, and is a no-op if the program has exited.
func (p *Program) Kill() {
	p.t.Helper()
	if err := p.Cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.fatalf("kill: %v", err)
	}
}

// Wait waits until the program exits, and returns its state. It fails the test
// if the program does not exit. Processes that it started may still run, and
// its last lines may not have been read yet: WaitGone waits for both.
func (p *Program) Wait() *os.ProcessState {
	p.t.Helper()
	if !p.waitDone(waitLimit(p.t)) {
		p.fatalf("still running")
	}
	return p.Cmd.ProcessState
}

func (p *Program) waitDone(limit time.Duration) bool { return waitClosed(p.done, limit) }

func (p *Program) exited() bool { return p.waitDone(0) }

// WaitGone waits for the end of the output, and returns the time of that. The
// output ends when no process holds it: the program and all processes that it
// started have exited, or have closed both stdout and stderr. WaitGone fails
// the test if the output does not end.
func (p *Program) WaitGone() time.Time {
	p.t.Helper()
	if !waitClosed(p.eof, waitLimit(p.t)) {
		p.fatalf("output still open%s", p.listLeftover())
	}
	return p.eofTime
}

// listLeftover returns the leftover processes for a message.
func (p *Program) listLeftover() string {
	left, err := p.Descendants()
	if err != nil || len(left) == 0 {
		return ""
	}
	return ", leftover processes:" + list(left)
}

// Descendants returns the live processes that the program and its descendants
// have started: all that have its environment, or hold its output open for
// writing. Neither the program itself nor zombies are among them, nor processes
// of other users that this one may not examine. A process that starts or exits
// during the call may be in the result or not. It needs Linux.
func (p *Program) Descendants() ([]Proc, error) {
	return processes(func(pid int) bool {
		return pid != os.Getpid() && (p.exited() || pid != p.PID()) && p.owns(pid)
	})
}

// owns reports whether the process is the program or one of its descendants.
func (p *Program) owns(pid int) bool {
	return hasVariable(pid, idVar+"="+p.id) || holdsPipe(pid, p.pipe)
}

// Stop kills the remaining processes of the program. It is called when the test
// ends; further calls are no-ops.
//
// If the program is still running, Stop kills it and its Descendants. If the
// program has exited, Stop reports leftover Descendants by t.Errorf, and then
// kills them. If a signal killed the program, so that it could not stop them,
// they first have 10 seconds to exit. On systems without Descendants, Stop
// reports an output that is still open after 10 seconds.
//
// If the test has failed, Stop logs the output.
func (p *Program) Stop() {
	p.t.Helper()
	if !p.stopped.Swap(true) {
		p.stop()
	}
}

func (p *Program) stop() {
	p.t.Helper()
	exited := p.exited()
	if !exited {
		p.Cmd.Process.Kill() // an error means that the program has just exited
		if !p.waitDone(waitTimeout) {
			p.t.Errorf("preforktest: %s: cannot be killed", p)
		}
	}
	if exited || p.exited() && !killed(p.Cmd.ProcessState) {
		p.reportLeftover()
	}
	p.killLeftover()
	if !waitClosed(p.eof, p.outputGrace) {
		p.t.Errorf("preforktest: %s: output held open by an unknown process", p)
	}
	p.source.Close()
	<-p.eof
	if p.t.Failed() {
		p.t.Logf("preforktest: %s: %s", p, p.transcript())
	}
}

// killed reports whether SIGKILL ended the process. Otherwise it was not running
// when Stop killed it.
func killed(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return runtime.GOOS == "windows" ||
		ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// reportLeftover fails the test if there are leftover processes.
func (p *Program) reportLeftover() {
	p.t.Helper()
	if status, ok := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		poll(p.orphanGrace, func() bool {
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
		p.t.Errorf("preforktest: %s: leftover processes:%s", p, list(left))
	}
}

// killLeftover kills the Descendants until there are none. Each round kills the
// processes that those of the last round had still started.
func (p *Program) killLeftover() {
	p.t.Helper()
	done := poll(leakTimeout, func() bool {
		left, err := p.Descendants()
		for _, proc := range left {
			p.killOwned(proc.PID)
		}
		return err != nil || len(left) == 0
	})
	if !done {
		p.t.Errorf("preforktest: %s: processes cannot be killed%s", p, p.listLeftover())
	}
}

// killOwned kills a descendant. It checks the owner after it has a handle of the
// process: only then can the id no longer become that of another process.
func (p *Program) killOwned(pid int) {
	if proc, err := os.FindProcess(pid); err == nil {
		if p.owns(pid) {
			proc.Kill()
		}
		proc.Release()
	}
}

// String returns the name and the state of the program, for messages.
func (p *Program) String() string {
	switch {
	case p.Cmd.Process == nil:
		return p.name + " (not started)"
	case p.exited():
		return fmt.Sprintf("%s (pid %d, %v)", p.name, p.PID(), p.Cmd.ProcessState)
	}
	return fmt.Sprintf("%s (pid %d, running)", p.name, p.PID())
}

// fatalf fails the test with a message that names the program. Stop logs its
// output.
func (p *Program) fatalf(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("preforktest: %s: %s", p, fmt.Sprintf(format, args...))
}
