//go:build unix

package scoreboard

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// The descriptors of a program, besides the standard streams.
const (
	cellFD   = 3
	notifyFD = 4 // one byte for each notification
)

// A worker is a process with a cell. The test sends it commands on its standard
// input and reads its output.
type worker struct {
	*Cell
	*preforktest.Program
	t             testing.TB
	in            io.Writer
	notifications *os.File
}

// start starts a worker. It exits at the end of its standard input, when the
// test ends.
func start(t testing.TB, name string) *worker {
	t.Helper()
	cell, fd := newCell(t)
	file := os.NewFile(uintptr(fd), "cell")
	notifications, notificationsW := pipe(t)
	p := preforktest.New(t, name)
	p.Cmd.ExtraFiles = []*os.File{file, notificationsW}
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	file.Close()
	notificationsW.Close()
	t.Cleanup(func() {
		in.Close()
		p.Wait()
	})
	return &worker{cell, p, t, in, notifications}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
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
	if got := w.NextLine(); got != want {
		w.t.Fatalf("the process prints %q, want %q", got, want)
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
