package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func open(t *testing.T, cfg Config) *File {
	t.Helper()
	f, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(context.Background()) })
	return f
}

func write(t *testing.T, f *File, s string) {
	t.Helper()
	if n, err := f.Write([]byte(s)); n != len(s) || err != nil {
		t.Errorf("Write %q: %d, %v", s, n, err)
	}
}

// files returns the contents of all files of a log, the oldest first.
func files(t *testing.T, path string) (all []string) {
	t.Helper()
	ext := filepath.Ext(path)
	names, err := filepath.Glob(strings.TrimSuffix(path, ext) + "-*" + ext)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(names, compareNames)
	for _, name := range append(names, path) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(content))
	}
	return all
}

// compareNames compares the times in two names, and then the numbers that
// timberjack adds if the times are equal.
func compareNames(a, b string) int {
	key := func(name string) string {
		stem := strings.TrimSuffix(name, filepath.Ext(name))
		at := strings.LastIndexByte(stem, '-')
		reason, number, _ := strings.Cut(stem[at:], "_")
		return fmt.Sprintf("%s %08s %s", stem[:at], number, reason)
	}
	return strings.Compare(key(a), key(b))
}

// A file is rotated between lines, and has at most MaxSize bytes unless a line is
// longer.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", 30) + "\n"
	for i, test := range []struct{ writes, want string }{ // divided by /
		{"1\n/2\n", "1\n2\n"},
		{"123456789\n/1\n", "123456789\n/1\n"},
		{"1\n2\n3\n4\n5\n6\n7\n", "1\n2\n3\n4\n5\n/6\n7\n"},
		{"1234\n/56789\n", "1234\n/56789\n"},
		{long, long},
		{"1\n/" + long + "2\n", "1\n/" + long + "/2\n"},
		{"1\n" + long + "2\n3\n", "1\n/" + long + "/2\n3\n"},
		{"12/34567890\n1\n", "1234567890\n/1\n"}, // the rest of a line that was written in part
		{"12/3", "123"},
		{"123456789/0123\n4\n", "1234567890123\n/4\n"},
	} {
		path := filepath.Join(dir, fmt.Sprintf("%d.log", i))
		f := open(t, Config{Path: path, MaxSize: 10})
		for w := range strings.SplitSeq(test.writes, "/") {
			write(t, f, w)
		}
		if got := strings.Join(files(t, path), "/"); got != test.want {
			t.Errorf("%q: got %q, want %q", test.writes, got, test.want)
		}
	}
}

// A file that exists is continued, on a new line.
func TestContinues(t *testing.T) {
	for before, want := range map[string]string{
		"":                 "x\n",
		"a\n":              "a\nx\n",
		"ends within":      "ends within\nx\n",
		"12345678901234\n": "12345678901234\n/x\n",
		"12345678901234":   "12345678901234\n/x\n",
	} {
		path := filepath.Join(t.TempDir(), "a.log")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, Config{Path: path, MaxSize: 14})
		if got, _ := os.ReadFile(path); string(got) != before {
			t.Errorf("%q was changed by Open", before)
		}
		write(t, f, "x\n")
		if got := strings.Join(files(t, path), "/"); got != want {
			t.Errorf("%q: got %q, want %q", before, got, want)
		}
		if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
	}
}

func TestKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path, MaxSize: 2, Keep: 2})
	for i := range 6 {
		write(t, f, fmt.Sprintf("%d\n", i))
		// Files are kept by their times, of which equal ones count once.
		for now := time.Now().Truncate(time.Millisecond); !time.Now().Truncate(time.Millisecond).After(now); {
			runtime.Gosched()
		}
	}
	preforktest.WaitFor(t, "old files are deleted", func() bool {
		entries, err := os.ReadDir(filepath.Dir(path))
		return err == nil && len(entries) == 3
	})
	if got := strings.Join(files(t, path), "/"); got != "3\n/4\n/5\n" {
		t.Errorf("%q", got)
	}
}

func TestCompress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path, Compress: true})
	write(t, f, "a\n")
	if err := f.Rotate(); err != nil {
		t.Fatal(err)
	}
	write(t, f, "b\n")
	preforktest.WaitFor(t, "the file is compressed", func() bool {
		names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "a-*-request.log.gz"))
		return len(names) == 1 && len(files(t, path)) == 1
	})
	if got := files(t, path)[0]; got != "b\n" {
		t.Errorf("%q", got)
	}
}

// If a rotation fails, lines go on into the file, and Write returns an error with
// the number of all bytes.
func TestRotationFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("a", 240)+".log") // no place for a time
	f := open(t, Config{Path: path, MaxSize: 4})
	write(t, f, "a\n")
	for _, s := range []string{"123\n", "45", "6\n"} {
		if n, err := f.Write([]byte(s)); n != len(s) || err == nil || !strings.Contains(err.Error(), "cannot be rotated") {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	if err := f.Rotate(); err == nil {
		t.Error("Rotate returned nil")
	}
	if got := strings.Join(files(t, path), "/"); got != "a\n123\n456\n" {
		t.Errorf("%q", got)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path, MaxSize: 4})
	write(t, f, "a\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Skipf("this system does not rename an open file: %v", err)
	}
	write(t, f, "b\n")
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, f, "c\nd\n")
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); err == nil {
		t.Error("a directory was opened")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, f, "e\n")
	for name, want := range map[string]string{path + ".1": "a\nb\n", path + ".2": "c\nd\n", path: "e\n"} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s: %q, %v", filepath.Base(name), got, err)
		}
	}
}

// A rotation between another program's rename and Reopen begins another file.
func TestRotationOfMovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path, MaxSize: 4})
	write(t, f, "a\nb\n")
	for _, rotate := range []func(){
		func() { write(t, f, "c\nd\n") },
		func() {
			if err := f.Rotate(); err != nil {
				t.Error(err)
			}
		},
	} {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Skipf("this system does not rename an open file: %v", err)
		}
		rotate()
	}
	write(t, f, "e\n")
	for name, want := range map[string]string{path + ".1": "c\nd\n", path: "e\n"} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s: %q, %v", filepath.Base(name), got, err)
		}
	}
}

func TestClose(t *testing.T) {
	preforktest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path, Keep: 1, MaxSize: 2})
	write(t, f, "a\n")
	write(t, f, "b\n")
	for range 2 {
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n, err := f.Write([]byte("c\n")); n != 0 || !errors.Is(err, capture.ErrLost) {
		t.Errorf("Write: %d, %v", n, err)
	}
	for _, err := range []error{f.Rotate(), f.Reopen()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
	if got := files(t, path); got[len(got)-1] != "b\n" {
		t.Errorf("%q", got)
	}
}

// Close waits for a Write and for the compression of old files no longer than its
// context allows.
func TestCloseHasAnEnd(t *testing.T) {
	preforktest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "a.log")
	f := open(t, Config{Path: path})
	f.mu.Lock() // as a Write that blocks
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Close(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	f.mu.Unlock()
	if err := f.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := f.Write([]byte("a\n")); !errors.Is(err, capture.ErrLost) {
		t.Errorf("Write after that: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"no path":         {},
		"a directory":     {Path: dir},
		"no directory":    {Path: filepath.Join(dir, "none", "a.log")},
		"a negative size": {Path: filepath.Join(dir, "a.log"), MaxSize: -1},
		"a negative age":  {Path: filepath.Join(dir, "a.log"), MaxAge: -1},
		"keeping -1":      {Path: filepath.Join(dir, "a.log"), Keep: -1},
	} {
		if f, err := Open(cfg); err == nil {
			f.Close(t.Context())
			t.Errorf("%s was accepted", name)
		}
	}
}
