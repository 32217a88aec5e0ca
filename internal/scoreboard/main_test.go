//go:build unix

package scoreboard

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programVar names the program that TestMain runs instead of the tests. No
// program starts another.
const programVar = "SCOREBOARD_TEST_PROGRAM"

// The descriptors of a program, besides the standard streams.
const (
	cellFD   = 3
	notifyFD = 4 // one byte for each notification
)

// limit is the maximum time that a test waits for a process.
const limit = 30 * time.Second

var programs = map[string]func(){}

// program registers a program under a name, beside the test that uses it.
func program(name string, run func()) string {
	programs[name] = run
	return name
}

func TestMain(m *testing.M) {
	if name := os.Getenv(programVar); name != "" {
		run := programs[name]
		if run == nil {
			fmt.Fprintf(os.Stderr, "no program %q\n", name)
			os.Exit(99)
		}
		run()
		os.Exit(0)
	}
	code := m.Run()
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); code == 0 && err != syscall.ECHILD {
		fmt.Fprintf(os.Stderr, "leftover process: wait4: %d, %v\n", pid, err)
		code = 1
	}
	os.Exit(code)
}

// A worker is a process with a cell. The test sends it commands on its standard
// input and reads its standard output.
type worker struct {
	*Cell
	t             testing.TB
	pid           int
	in            *os.File
	out           *os.File
	lines         *bufio.Reader
	notifications *os.File
	reaped        bool
}

func start(t testing.TB, name string) *worker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cell, fd := newCell(t)
	defer unix.Close(fd)
	inR, in := pipe(t)
	out, outW := pipe(t)
	notifications, notificationsW := pipe(t)
	w := &worker{Cell: cell, t: t, in: in, out: out, lines: bufio.NewReader(out), notifications: notifications}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, programVar) })
	files := []uintptr{inR.Fd(), outW.Fd(), 2, uintptr(fd), notificationsW.Fd()}
	w.pid, _, err = syscall.StartProcess(self, []string{name}, &syscall.ProcAttr{
		Env: append(env, programVar+"="+name, "GORACE=atexit_sleep_ms=0"), Files: files,
	})
	inR.Close()
	outW.Close()
	notificationsW.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
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

// end closes the standard input of the process, which makes it exit, and reaps
// it.
func (w *worker) end() {
	if w.reaped {
		return
	}
	w.in.Close()
	if _, err := io.Copy(io.Discard, w.lines); err != nil {
		w.t.Errorf("process %d does not exit: %v", w.pid, err)
		syscall.Kill(w.pid, syscall.SIGKILL)
	}
	w.reap()
}

func (w *worker) reap() (status syscall.WaitStatus) {
	w.reaped = true
	for {
		if _, err := syscall.Wait4(w.pid, &status, 0, nil); err != syscall.EINTR {
			return status
		}
	}
}

// do sends a command and waits until the program has executed it.
func (w *worker) do(command string) {
	w.t.Helper()
	w.send(command)
	w.expect("done " + command)
}

func (w *worker) send(command string) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.in, command); err != nil {
		w.t.Fatal(err)
	}
}

func (w *worker) expect(want string) {
	w.t.Helper()
	got, err := w.lines.ReadString('\n')
	if err != nil || got != want+"\n" {
		w.t.Fatalf("the process prints %q (%v), want %q", got, err, want)
	}
}

// expectNotification reads one notification.
func (w *worker) expectNotification() {
	w.t.Helper()
	if _, err := io.ReadFull(w.notifications, make([]byte, 1)); err != nil {
		w.t.Fatalf("no notification: %v", err)
	}
}

// open opens the cell of a program.
func open() *Writer {
	w, err := Open(cellFD, func() { unix.Write(notifyFD, []byte{'!'}) })
	must(err)
	must(unix.Close(cellFD))
	return w
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(98)
	}
}

// newCell returns a new cell and its descriptor, which the caller must close.
func newCell(t testing.TB) (c *Cell, fd int) {
	t.Helper()
	fd = newFile(t)
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, fd
}

// pair returns a cell and its writer, both in this process.
func pair(t testing.TB, notify func()) (*Cell, *Writer) {
	t.Helper()
	c, fd := newCell(t)
	defer unix.Close(fd)
	w, err := Open(fd, notify)
	if err != nil {
		t.Fatal(err)
	}
	return c, w
}

// newFile returns the descriptor of a new anonymous file.
func newFile(t testing.TB) int {
	t.Helper()
	fd, err := anonymousFile()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// unlinkedFile returns the descriptor of a new anonymous file that cannot be
// sealed.
func unlinkedFile() (int, error) {
	f, err := os.CreateTemp("", "scoreboard-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}
