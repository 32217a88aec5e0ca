package logger

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// The logger follows a current that another program empties or removes.
func TestFollows(t *testing.T) {
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	p := newPipe(t)
	l := p.open(dir)
	defer l.close()
	turn := func(text string) {
		t.Helper()
		p.print("%s", text)
		if err := l.wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.step(); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dir); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	turn("aaa\n")
	if err := os.Truncate(current, 0); err != nil {
		t.Fatal(err)
	}
	turn("b\n")
	if err := os.Remove(current); err != nil {
		t.Fatal(err)
	}
	turn("c\n")
	if err := os.Rename(current, filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	l.dirs[0].rotateSoon()
	turn("d\n")
	if names := rotated(dir); len(names) > 0 {
		t.Errorf("rotated %v, which another program has moved", names)
	}
}

// A logger whose directory was removed reports that once, and goes on.
func TestRemovedDirectory(t *testing.T) {
	for _, flags := range []string{"", "-z +b"} {
		dir := filepath.Join(t.TempDir(), "log")
		p := newPipe(t)
		l := p.start("log", append(strings.Fields(flags), dir)...)
		p.print("a\n")
		until(t, dir, "a\n")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p.print("b\n")
			p.drained()
		}
		p.end(l)
		l.WaitGone()
		if lines := l.Lines(); len(lines) > 1 {
			t.Errorf("%s: %q", flags, lines)
		}
	}
}

// SIGHUP opens a current that another program has renamed.
func TestReopens(t *testing.T) {
	dir := t.TempDir()
	current, moved := filepath.Join(dir, "current"), filepath.Join(dir, "moved")
	p := newPipe(t)
	l := p.start("log", dir)
	p.print("a\n")
	until(t, dir, "a\n")
	if err := os.Rename(current, moved); err != nil {
		t.Fatal(err)
	}
	l.Signal(syscall.SIGHUP)
	preforktest.WaitFor(t, "another current", func() bool { _, err := os.Stat(current); return err == nil })
	p.print("b\n")
	until(t, dir, "b\n")
	if m := mode(t, moved); m != 0o744 {
		t.Errorf("the moved file has mode %v", m)
	}
	if err := os.Rename(current, moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(current, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Signal(syscall.SIGHUP)
	l.Expect("cannot open the file again, and goes on with the open one: .* is a directory$")
	p.print("c\n")
	p.end(l)
	if content, err := os.ReadFile(moved); err != nil || string(content) != "b\nc\n" {
		t.Errorf("%q, %v", content, err)
	}
}
