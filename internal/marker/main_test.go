//go:build unix

package marker

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain runs the program that programVar names instead of the tests. levelVar
// stays in the environment of all descendants, so that none of them runs the tests
// or starts itself without end.
const (
	programVar = "MARKER_TEST_PROGRAM"
	levelVar   = "MARKER_TEST_LEVEL"
	maxLevel   = 30
)

var programs = map[string]func(args []string){}

// program registers a program beside the test that uses it.
func program(name string, run func(args []string)) string {
	programs[name] = run
	return name
}

// programEnv returns the environment in which the test binary runs a program.
func programEnv(name string) []string {
	level, _ := strconv.Atoi(os.Getenv(levelVar))
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MARKER_TEST_") })
	return append(env, programVar+"="+name, levelVar+"="+strconv.Itoa(level+1), "GORACE=atexit_sleep_ms=0")
}

func TestMain(m *testing.M) {
	level, _ := strconv.Atoi(os.Getenv(levelVar))
	name := os.Getenv(programVar)
	if name != "" || level > 0 {
		run := programs[name]
		if run == nil || level > maxLevel {
			fmt.Fprintf(os.Stderr, "program %q at level %d\n", name, level)
			os.Exit(99)
		}
		run(os.Args[1:])
		os.Exit(0)
	}
	code := m.Run()
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); code == 0 && err != syscall.ECHILD {
		fmt.Fprintf(os.Stderr, "leftover process: wait4: %d, %v\n", pid, err)
		code = 1
	}
	os.Exit(code)
}

// limit is how long a test waits for output.
const limit = 30 * time.Second

// A process that a test controls by its standard input and output.
type process struct {
	t     testing.TB
	pid   int
	in    *os.File
	lines *bufio.Reader
	ended bool
}

// start starts a file as one of the programs. files become its descriptors from 3
// on.
func start(t testing.TB, path, name string, args, env []string, files ...int) *process {
	t.Helper()
	inR, in := pipe(t)
	out, outW := pipe(t)
	all := []uintptr{inR.Fd(), outW.Fd(), outW.Fd()}
	for _, fd := range files {
		all = append(all, uintptr(fd))
	}
	env = append(programEnv(name), env...)
	pid, _, err := syscall.StartProcess(path, append([]string{name}, args...), &syscall.ProcAttr{Env: env, Files: all})
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	p := &process{t: t, pid: pid, in: in, lines: bufio.NewReader(out)}
	t.Cleanup(p.end)
	return p
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(limit))
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

// end closes the standard input of the process and waits until it and its
// descendants have closed their output.
func (p *process) end() {
	if p.ended {
		return
	}
	p.ended = true
	p.in.Close()
	if _, err := io.Copy(io.Discard, p.lines); err != nil {
		p.t.Errorf("process %d has not ended: %v", p.pid, err)
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	for {
		if _, err := syscall.Wait4(p.pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// text returns the output of the process up to its end.
func (p *process) text() string {
	p.t.Helper()
	all, err := io.ReadAll(p.lines)
	if err != nil {
		p.t.Fatalf("%v after %q", err, all)
	}
	p.end()
	return strings.TrimSuffix(string(all), "\n")
}

// self returns the path of the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sockets returns the ends of a control socket, both close-on-exec.
func sockets(t testing.TB) (ours, theirs int) {
	t.Helper()
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}
