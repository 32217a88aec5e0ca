//go:build unix

package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("reader", lineReader)
	preforktest.Register("deaf", func() { time.Sleep(time.Hour) })
	preforktest.Register("exits", func() { os.Exit(3) })
}

// lineReader appends lines of its input to a file, and exits after a number of them.
// It reads single bytes, so that it takes no more than it writes.
func lineReader() {
	f, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	lines, _ := strconv.Atoi(os.Args[2])
	var b [1]byte
	var line []byte
	for lines > 0 {
		n, err := os.Stdin.Read(b[:])
		if n == 0 && err != nil {
			break
		}
		if line = append(line, b[0]); b[0] == '\n' {
			f.Write(line)
			line = line[:0]
			lines--
		}
	}
	f.Write(line)
}

// newTestCommand returns a Sink that starts a registered program.
func newTestCommand(t *testing.T, report func(error), name string, args ...string) *command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCommand(CommandConfig{
		Args: append([]string{exe}, args...), Env: preforktest.Environ(t, name), Report: report,
	}, time.Microsecond, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A command that ends is started again, and reads on where it has stopped.
func TestCommandEnds(t *testing.T) {
	preforktest.NoLeaks(t)
	file := filepath.Join(t.TempDir(), "log")
	reports := make(chan error, 100)
	sink := newTestCommand(t, func(err error) { reports <- err }, "reader", file, "100")
	c := newCapture(t, Config{Sink: sink})
	w := start(t, c, 0, 1)
	var want bytes.Buffer
	for i := range 550 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	w.print(want.String())
	w.end()
	closeAll(t, c)
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d lines arrived, want 550: %v", bytes.Count(got, []byte("\n")), err)
	}
	if len(reports) == 0 {
		t.Error("no end was reported")
	} else if err := <-reports; !strings.Contains(err.Error(), "exit status 0") {
		t.Error(err)
	}
}

func TestCommandIsMissing(t *testing.T) {
	preforktest.NoLeaks(t)
	for _, args := range [][]string{nil, {filepath.Join(t.TempDir(), "none")}} {
		if _, err := NewCommand(CommandConfig{Args: args}); err == nil {
			t.Errorf("%q was started", args)
		}
	}
}

func pgid(pid int) int {
	group, _ := syscall.Getpgid(pid)
	return group
}

// Close kills a command that does not end, when its context ends.
func TestCommandIsDeaf(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newTestCommand(t, func(err error) { t.Errorf("started again: %v", err) }, "deaf")
	c := newCapture(t, Config{Sink: sink})
	w := start(t, c, 0, 1)
	filled := make(chan struct{})
	go func() {
		for range 300 { // more than the two pipes hold
			w.print(strings.Repeat("x", 1023) + "\n")
		}
		close(filled)
	}()
	preforktest.WaitFor(t, "the command's pipe is full", func() bool { return unread(sink.r) >= 60<<10 })
	if pid := sink.process.Pid; pid != pgid(pid) {
		t.Errorf("the command %d is in group %d", pid, pgid(pid))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.Close(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "was killed") {
		t.Error(err)
	}
	<-filled
}

// A command that has exited keeps its pid until Close cannot signal its group any
// more: the number could be another group's.
func TestCommandKeepsItsPID(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newTestCommand(t, nil, "reader", filepath.Join(t.TempDir(), "log"), "1")
	sink.mu.Lock()
	pid := sink.process.Pid
	if _, err := sink.Write([]byte("a\n")); err != nil { // its last line
		t.Error(err)
	}
	preforktest.WaitFor(t, "the goroutine that notes the exit", func() bool {
		stacks := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(stack, "(*command).wait") && strings.Contains(stack, "sync.(*Mutex).Lock") {
				return true
			}
		}
		return false
	})
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the pid %d is free, and Close would signal its group: %v", pid, err)
	}
	sink.mu.Unlock()
	if err := sink.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A command that ends again and again without reading is not started forever.
func TestCommandReadsNothing(t *testing.T) {
	preforktest.NoLeaks(t)
	started := make(chan error, 100)
	sink := newTestCommand(t, func(err error) {
		select {
		case started <- err:
		default:
		}
	}, "exits")
	c := newCapture(t, Config{Sink: sink})
	w := start(t, c, 0, 1)
	w.print("twelve bytes")
	w.end()
	if err := <-started; !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Close(ctx); err == nil || !strings.Contains(err.Error(), "did not read the last 13 bytes") {
		t.Error(err)
	}
}

// A child that always has more to read delays neither the report of an end nor
// Close.
func TestPipeIsNeverEmpty(t *testing.T) {
	preforktest.NoLeaks(t)
	c := newCapture(t, Config{Sink: discard{}})
	c.endWait = time.Hour
	w, err := c.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range w.pipes {
		p.ready = func(uintptr) bool { return true }
		p.next = func(uintptr) bool {
			for i := range p.buf {
				p.buf[i] = "x\n"[i&1]
			}
			p.n, p.err = len(p.buf), nil
			return true
		}
	}
	w.Started(1)
	last := make(chan []Line, 1)
	w.Ended(func(l []Line) { last <- l })
	<-last
	closeAll(t, c)
}

// A worker gets pipes in blocking mode: many programs lose what they write to
// others.
func TestPipesBlock(t *testing.T) {
	c := newCapture(t, Config{Sink: newMemory()})
	w, err := c.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Cancel()
	for _, f := range []*os.File{w.Stdout, w.Stderr} {
		raw, err := fd.Raw(f)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(raw, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
}
