//go:build unix

package inherit

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is its own supply of programs: TestMain runs the one that programVar names instead of the tests.
// levelVar stays in the environment of all that come from it, so that none runs the tests, or breeds, by mistake.
const (
	programVar = "INHERIT_TEST_PROGRAM"
	levelVar   = "INHERIT_TEST_LEVEL"
	maxLevel   = 30
)

var programs = map[string]func(args []string){}

// program registers a program under a name, beside the test that uses it.
func program(name string, run func(args []string)) string {
	programs[name] = run
	return name
}

// programEnv is the environment in which the test binary is the program.
func programEnv(name string) []string {
	level, _ := strconv.Atoi(os.Getenv(levelVar))
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "INHERIT_TEST_") })
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
		fmt.Fprintf(os.Stderr, "a process is left: wait4: %d, %v\n", pid, err)
		code = 1
	}
	os.Exit(code)
}

// limit is how long a test waits for what must come.
const limit = 30 * time.Second

// A process of a test, which it speaks to on its standard input and output.
type process struct {
	t     testing.TB
	pid   int
	in    *os.File
	lines *bufio.Reader
	ended bool
}

// start starts a file as one of the programs. files are its descriptors from 3 on, as bare numbers.
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

// end is the end of the process: it and what came from it read the end of their standard input, and have closed their
// output when they are gone.
func (p *process) end() {
	if p.ended {
		return
	}
	p.ended = true
	p.in.Close()
	if _, err := io.Copy(io.Discard, p.lines); err != nil {
		p.t.Errorf("process %d does not end: %v", p.pid, err)
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	for {
		if _, err := syscall.Wait4(p.pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// text is all that the process prints, read to its end.
func (p *process) text() string {
	p.t.Helper()
	all, err := io.ReadAll(p.lines)
	if err != nil {
		p.t.Fatalf("%v after %q", err, all)
	}
	p.end()
	return strings.TrimSuffix(string(all), "\n")
}

func (p *process) expect(want string) {
	p.t.Helper()
	got, err := p.lines.ReadString('\n')
	if err != nil || got != want+"\n" {
		p.t.Fatalf("the process prints %q (%v), want %q", got, err, want)
	}
}

// wait says that it is up, and ends with its standard input.
var waitProgram = program("wait", func([]string) {
	fmt.Println("up")
	io.Copy(io.Discard, os.Stdin)
})

// self is the path of the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// copied is a copy of the test binary.
func copied(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	return written(t, "program", data, 0o755)
}

// written is a new file in a directory of its own.
func written(t testing.TB, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// sockets are the two ends of a control socket, both close-on-exec, the first one's for the test.
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
