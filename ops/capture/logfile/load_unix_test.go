//go:build unix && !solaris && !aix

package logfile

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "write 50 times as many lines")

// Several workers write, while the file is rotated by size and on request, and
// another program renames it: no line is lost, doubled or torn.
func TestRotationUnderLoad(t *testing.T) {
	preforktest.NoLeaks(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	f := open(t, Config{Path: path, MaxSize: 40_000})
	var unrotated atomic.Bool
	c, err := capture.New(capture.Config{Sink: f, Report: func(err error) {
		// A move within a rotation fails that, and only that.
		unrotated.Store(true)
		if err != nil && !strings.Contains(err.Error(), "cannot be rotated") {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	const workers = 4
	lines := 4000
	if *long {
		lines *= 50
	}
	var all sync.WaitGroup
	for i := range workers {
		w, err := c.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(w.Stdout.Fd())) // as a process has it
		if err != nil {
			t.Fatal(err)
		}
		out := os.NewFile(uintptr(fd), "stdout")
		w.Started(i + 1)
		all.Go(func() {
			var buf []byte
			for n := range lines {
				buf = fmt.Appendf(buf, "%d %d %s\n", i, n, strings.Repeat("x", n%100))
				if n%7 == 0 {
					half := len(buf) / 2 // ends within a line
					out.Write(buf[:half])
					buf = append(buf[:0], buf[half:]...)
				}
			}
			out.Write(buf)
			out.Close()
			w.Ended(nil)
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	moved, running := 0, true
	for running {
		if err := f.Rotate(); err != nil {
			t.Error(err)
		}
		switch err := os.Rename(path, filepath.Join(dir, fmt.Sprintf("moved.%d", moved))); {
		case err == nil:
			moved++
		case !errors.Is(err, fs.ErrNotExist): // within a rotation
			t.Error(err)
		}
		if err := f.Reopen(); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
			running = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	var seen [workers][]bool
	for i := range seen {
		seen[i] = make([]bool, lines)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if len(content) > 40_000 && !unrotated.Load() {
			t.Errorf("%s has %d bytes", e.Name(), len(content))
		}
		last := [workers]int{-1, -1, -1, -1}
		for line := range strings.Lines(string(content)) {
			var i, n int
			if _, err := fmt.Sscanf(line, "%d %d ", &i, &n); err != nil || i < 0 || i >= workers || n < 0 || n >= lines ||
				line != fmt.Sprintf("%d %d %s\n", i, n, strings.Repeat("x", n%100)) {
				t.Fatalf("%s: torn: %q", e.Name(), line)
			}
			if seen[i][n] || n <= last[i] {
				t.Fatalf("%s: doubled, or not in order: %q", e.Name(), line)
			}
			seen[i][n], last[i] = true, n
		}
	}
	for i := range seen {
		for n, ok := range seen[i] {
			if !ok {
				t.Fatalf("line %d of worker %d is missing", n, i)
			}
		}
	}
	t.Logf("%d lines in %d files, %d of which were moved", workers*lines, len(entries), moved)
}

// A directory in which another user could replace the file is refused, and so is
// one below a directory of another user's.
func TestForeignDirectory(t *testing.T) {
	preforktest.NeedRoot(t)
	top := t.TempDir()
	const nobody = 65534
	make := func(name string, mode os.FileMode, uid int) string {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	make("theirs", 0o755, nobody)
	make("writable", 0o777, 0)
	make("theirs/below", 0o755, 0)
	make("writable/below", 0o755, 0)
	make("own", 0o755, 0)
	make("sticky", 0o777|os.ModeSticky, 0)
	make("sticky/below", 0o755, 0)
	for link, target := range map[string]string{"own/to theirs": "theirs/below", "own/to own": "own", "theirs/to own": "own"} {
		if err := os.Symlink(filepath.Join(top, target), filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, ok := range map[string]bool{
		"theirs": false, "theirs/below": false, "writable": false, "writable/below": false,
		"sticky": false, "sticky/below": true, "own": true,
		"own/to theirs": false, "own/to own": true, "theirs/to own": false,
	} {
		f, err := Open(Config{Path: filepath.Join(top, name, "a.log")})
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			f.Close(t.Context())
		}
	}
	victim := filepath.Join(top, "victim")
	if err := os.WriteFile(victim, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "own", "link.log")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: link}); err == nil {
		t.Error("a link was followed")
	}
}
