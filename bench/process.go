//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limit is the maximum time to wait for anything that a contender does. A
// contender that takes longer has failed.
const limit = time.Minute

// spec describes how to start a contender.
type spec struct {
	name string
	args []string
	env  []string // added to the environment of bench
	dir  string   // "" means a new directory
	cpus []int    // nil means all processors
}

// program is a running contender with all its descendants.
type program struct {
	launcher *launcher
	name     string
	cmd      *exec.Cmd
	id       string
	lines    chan string
	stdin    io.WriteCloser
	errs     *os.File
	exited   chan struct{} // closed after cmd has exited
	state    *os.ProcessState
}

// idVar is in the environment of every process of a contender and identifies
// the contender.
const idVar = "PREFORK_BENCH_ID"

// launcher starts contenders from one thread that lives as long as bench. To
// the kernel, the processors and the parent-death signal belong to the starting
// thread, and the end of that thread is the death of the parent.
type launcher struct {
	calls   chan func()
	started int
	own     sync.Map // pids of programs with their own Wait
}

// newLauncher also makes this process a subreaper, so that it can reap leftover
// processes of contenders.
func newLauncher() *launcher {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	l := &launcher{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for call := range l.calls {
			call()
		}
	}()
	return l
}

// start starts cmd so that it and its descendants run only on the given
// processors.
func (l *launcher) start(cmd *exec.Cmd, cpus []int) (err error) {
	done := make(chan struct{})
	l.calls <- func() {
		defer close(done)
		if cpus == nil {
			err = l.startOwn(cmd)
			return
		}
		var before, set unix.CPUSet
		if err = unix.SchedGetaffinity(0, &before); err != nil {
			return
		}
		for _, cpu := range cpus {
			set.Set(cpu)
		}
		if err = unix.SchedSetaffinity(0, &set); err == nil {
			err = l.startOwn(cmd)
			unix.SchedSetaffinity(0, &before)
		}
	}
	<-done
	return err
}

// close ends the thread. The kernel then kills the programs that still run.
func (l *launcher) close() { close(l.calls) }

func (l *launcher) startOwn(cmd *exec.Cmd) error {
	err := cmd.Start()
	if err == nil {
		l.own.Store(cmd.Process.Pid, true)
	}
	return err
}

// reapOrphans reaps leftover processes of contenders, whose parent this process
// has become.
func (l *launcher) reapOrphans() {
	for _, pid := range children(os.Getpid()) {
		if _, own := l.own.Load(pid); !own {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// start starts a contender. Its standard output is sent to lines; its standard
// error goes to a file that errors quote.
func (r *run) start(s spec) (*program, error) {
	r.launcher.started++
	p := &program{
		launcher: r.launcher, name: s.name, id: fmt.Sprintf("%d.%d", os.Getpid(), r.launcher.started),
		lines: make(chan string, 1<<16), exited: make(chan struct{}),
	}
	if s.dir == "" {
		s.dir = filepath.Join(r.dir, p.id)
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if p.errs, err = os.Create(filepath.Join(r.dir, p.id+".stderr")); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(s.args[0], s.args[1:]...)
	p.cmd.Dir = s.dir
	p.cmd.Env = append(append(os.Environ(), s.env...), idVar+"="+p.id)
	p.cmd.Stderr = p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, w, err := os.Pipe() // Wait would close a StdoutPipe while workers still write
	if err != nil {
		return nil, err
	}
	defer w.Close()
	p.cmd.Stdout = w
	if err := r.launcher.start(p.cmd, s.cpus); err != nil {
		out.Close()
		return nil, err
	}
	go p.read(out)
	go func() {
		p.cmd.Wait()
		r.launcher.own.Delete(p.pid())
		p.state = p.cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

func (p *program) read(out *os.File) {
	defer out.Close()
	defer close(p.lines)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		p.lines <- scanner.Text()
	}
}

// expect waits for a line that begins with word and returns its other fields.
// It discards the lines before.
func (p *program) expect(ctx context.Context, word string) ([]string, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return nil, p.errorf("exited before the line %q", word)
			}
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] == word {
				return fields[1:], nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			return nil, p.errorf("no line %q within %v", word, limit)
		}
	}
}

// expectN waits for n lines that begin with word.
func (p *program) expectN(ctx context.Context, n int, word string) error {
	for range n {
		if _, err := p.expect(ctx, word); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until the program itself has exited.
func (p *program) wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return p.errorf("did not exit within %v", limit)
	}
}

func (p *program) signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }
func (p *program) pid() int                   { return p.cmd.Process.Pid }

// errorf returns an error that quotes the last lines of the contender's
// standard error.
func (p *program) errorf(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	stderr, _ := os.ReadFile(p.errs.Name())
	if lines := strings.Split(strings.TrimSpace(string(stderr)), "\n"); lines[0] != "" {
		text += "; standard error: " + strings.Join(lines[max(0, len(lines)-5):], " | ")
	}
	return fmt.Errorf("%s: %s", p.name, text)
}

// stop ends a contender. It sends SIGTERM and waits for the grace period. Then
// it kills every process that carries the id, until none is left. A signal to
// the process or its group would not suffice: some contenders leave processes
// when they exit.
func (p *program) stop() error {
	if p == nil {
		return nil
	}
	p.stdin.Close()
	defer p.errs.Close()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(grace):
		p.cmd.Process.Kill()
		<-p.exited
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		p.launcher.reapOrphans()
		left, complete := processesOf(p.id)
		// After the grace period, assume that an unreadable process belongs to
		// another contender.
		if len(left) == 0 && (complete || time.Since(began) > grace) {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("%s: leftover processes %v cannot be killed", p.name, left)
		}
		for _, pid := range left {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// grace is the time that a contender has to exit by itself.
const grace = 3 * time.Second
