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

// limit is how long anything that a contender is waited for may take. A contender that is late has failed.
const limit = time.Minute

// spec says how a contender is started.
type spec struct {
	name string
	args []string
	env  []string // added to the command's own
	dir  string   // "" means a new one
	cpus []int    // nil means all
}

// program is a contender that runs, with all that it has started.
type program struct {
	launcher *launcher
	name     string
	cmd      *exec.Cmd
	id       string
	lines    chan string
	stdin    io.WriteCloser
	errs     *os.File
	ended    chan struct{} // closed when cmd has ended
	state    *os.ProcessState
}

// idVar is in the environment of every process of a contender, and tells whose it is.
const idVar = "PREFORK_BENCH_ID"

// launcher starts contenders from one thread that lives as long as bench: to the kernel, processors and the parent-death
// signal belong to the thread that starts, and its end is the parent's death.
type launcher struct {
	calls   chan func()
	started int
	own     sync.Map // the pids of programs that are waited for
}

// newLauncher also makes this process the parent of what contenders leave behind, so that it can wait for that.
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

// start starts cmd so that it, and what it starts, runs on the given processors alone.
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

// close ends the thread; what it has started and still runs ends with it.
func (l *launcher) close() { close(l.calls) }

func (l *launcher) startOwn(cmd *exec.Cmd) error {
	err := cmd.Start()
	if err == nil {
		l.own.Store(cmd.Process.Pid, true)
	}
	return err
}

// reapOrphans waits for what contenders have left behind and what has ended since: this process has become its parent.
func (l *launcher) reapOrphans() {
	for _, pid := range children(os.Getpid()) {
		if _, own := l.own.Load(pid); !own {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// start starts a contender. Its standard output becomes lines, its standard error a file, which failure quotes.
func (r *run) start(s spec) (*program, error) {
	r.launcher.started++
	p := &program{
		launcher: r.launcher, name: s.name, id: fmt.Sprintf("%d.%d", os.Getpid(), r.launcher.started),
		lines: make(chan string, 1<<16), ended: make(chan struct{}),
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
	out, w, err := os.Pipe() // not StdoutPipe: Wait would close it while workers still write
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
		close(p.ended)
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

// expect waits for a line that begins with a word, and returns its other fields. Lines before it are passed over.
func (p *program) expect(ctx context.Context, word string) ([]string, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return nil, p.failed("it has ended, and %q was to come", word)
			}
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] == word {
				return fields[1:], nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			return nil, p.failed("no line %q within %v", word, limit)
		}
	}
}

// expectN waits for n lines that begin with a word.
func (p *program) expectN(ctx context.Context, n int, word string) error {
	for range n {
		if _, err := p.expect(ctx, word); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until the program itself has ended.
func (p *program) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return p.failed("it has not ended within %v", limit)
	}
}

func (p *program) signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }
func (p *program) pid() int                   { return p.cmd.Process.Pid }

// failed is an error with the last of what the contender said on standard error.
func (p *program) failed(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	said, _ := os.ReadFile(p.errs.Name())
	if lines := strings.Split(strings.TrimSpace(string(said)), "\n"); lines[0] != "" {
		text += "; it said: " + strings.Join(lines[max(0, len(lines)-5):], " | ")
	}
	return fmt.Errorf("%s: %s", p.name, text)
}

// stop ends a contender: it is told to, and has a moment; then everything that carries its id is killed, until nothing
// is left. Nothing else would do for all contenders, some of which leave processes behind when they end.
func (p *program) stop() error {
	if p == nil {
		return nil
	}
	p.stdin.Close()
	defer p.errs.Close()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(grace):
		p.cmd.Process.Kill()
		<-p.ended
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		p.launcher.reapOrphans()
		left, unsure := carriers(p.id)
		if len(left) == 0 && (!unsure || time.Since(began) > grace) { // it may be another contender's
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("%s: processes %v are left and cannot be killed", p.name, left)
		}
		for _, pid := range left {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// grace is how long a contender may take to end by itself.
const grace = 3 * time.Second
