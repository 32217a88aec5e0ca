package logger

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// A hanging is a directory whose processor hangs, in two processes, until go has a
// line. Descriptor 3 of both is alive.
type hanging struct {
	dir   string
	alive *os.File
	own   *os.File // its other end, until a processor has it
}

func newHanging(t *testing.T) *hanging {
	t.Helper()
	h := &hanging{dir: t.TempDir()}
	for _, name := range []string{"go", "alive"} {
		if err := unix.Mkfifo(filepath.Join(h.dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow, err := os.OpenFile(filepath.Join(h.dir, "go"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { allow.Close() })
	h.alive, err = os.OpenFile(filepath.Join(h.dir, "alive"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.alive.Close() })
	if h.own, err = os.OpenFile(filepath.Join(h.dir, "alive"), os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.own.Close() })
	write(t, h.dir, "config", "!trap '' TERM; exec 3>alive; echo hangs >&3; { read x; cat; } <go | cat")
	return h
}

// await returns when the processor hangs.
func (h *hanging) await(t *testing.T) {
	t.Helper()
	line := make([]byte, 6)
	if _, err := io.ReadFull(h.alive, line); err != nil || string(line) != "hangs\n" {
		t.Fatalf("%q, %v", line, err)
	}
	h.own.Close()
}

// gone returns when the processes of the processor are gone.
func (h *hanging) gone(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(h.alive); len(rest) > 0 || err != nil {
		t.Fatalf("%q, %v", rest, err)
	}
}

// A processor that hangs holds up the end for a limited time, and its files are left
// to the next logger.
func TestProcessorHangs(t *testing.T) {
	h := newHanging(t)
	other := t.TempDir()
	l := newProcessing(t, h.dir, other)
	l.dirs[1].worker.patience = 0
	l.file("a\n")
	l.dirs[1].rotateSoon()
	h.await(t)
	l.file("b\n")
	l.dirs[1].rotateSoon()
	l.p.print("c\n")
	l.p.w.Close()
	if err := l.run(); err != nil {
		t.Error(err)
	}
	h.gone(t)
	m := l.reported()
	if want := "leaves @.u to the next logger: "; len(m) != 1 || !strings.Contains(m[0], want) || !strings.HasSuffix(m[0], "<go | cat: killed, since it has not ended after 0s") {
		t.Errorf("%q, want %q", m, want)
	}
	if got := contents(t, h.dir); got != "a\nb\nc\n" || suffixes(h.dir) != ".u.u" {
		t.Errorf("%s, %q", suffixes(h.dir), got)
	}
	// The next logger goes on.
	write(t, h.dir, "config", "!tr a-z A-Z")
	newProcessing(t, h.dir).close()
	if got := contents(t, h.dir); got != "A\nB\nc\n" || suffixes(h.dir) != ".s.s" {
		t.Errorf("%s, %q", suffixes(h.dir), got)
	}
}

// A SIGTERM after the end of the input ends a logger whose processor hangs. All
// files are closed before.
func TestTermWhileProcessorHangs(t *testing.T) {
	h := newHanging(t)
	other := t.TempDir()
	p := newPipe(t)
	p.print("a\n")
	l := p.start("log", "-s", "1", h.dir, other)
	h.await(t)
	p.print("b\n")
	p.drained()
	l.Signal(syscall.SIGTERM)
	for _, dir := range []string{h.dir, other} {
		preforktest.WaitFor(t, "the file is closed", func() bool { return mode(t, filepath.Join(dir, "current"))&closed != 0 })
	}
	l.Signal(syscall.SIGTERM)
	expectStatus(t, l, 0)
	h.gone(t)
	if got := contents(t, h.dir); got != "a\nb\n" || suffixes(h.dir) != ".u.u" || suffixes(other) != ".s.s" {
		t.Errorf("%s, %s, %q", suffixes(h.dir), suffixes(other), got)
	}
	if out := strings.Join(l.Lines(), "\n"); !strings.Contains(out, "to the next logger: trap") || !strings.HasSuffix(out, ": stopped by SIGTERM") {
		t.Error(out)
	}
}

// A worker that is stopped does not compress.
func TestStoppedCompression(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nextName("", time.Unix(1, 0))+".u", "a\n")
	l := newProcessing(t, dir)
	w := newWorker(dir, l.dirs[0].report)
	w.stop()
	w.look(processor{gzip: true})
	w.end()
	<-w.done
	l.close()
	m := l.reported()
	if len(m) == 0 || m[len(m)-1] != "DIR: leaves @.u to the next logger: stopped by SIGTERM" || suffixes(dir) != ".u" {
		t.Errorf("%q, %s", m, suffixes(dir))
	}
}
