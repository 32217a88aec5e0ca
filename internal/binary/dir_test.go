//go:build unix

package binary

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A deployment has releases, and a link to the current one.
func TestDirByName(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"releases/1/bin", "releases/2", "alone/dir"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("releases/1", "current")
	for _, c := range []struct{ name, pwd, args0, dir, want string }{
		{"the name has a link", "set", "./server", "current", "current"},
		{"by the path of the program", "set", top + "/current/server", "releases/1", "current"},
		{"by a path above the program", "", top + "/current/bin/server", "releases/1", "current"},
		{"by the only link", "", "./server", "releases/1", "current"},
		{"by a link above it", "", "./server", "releases/1/bin", "current/bin"},
		{"the shell has a name without a link", "set", "./server", "releases/1", "releases/1"},
		{"no link leads there", "", "./server", "releases/2", "releases/2"},
		{"no link leads there, another program", "", "/bin/sh", "alone/dir", "alone/dir"},
		{"gone", "", "./server", "nowhere", "nowhere"},
	} {
		t.Setenv("PWD", c.pwd)
		if got := DirByName(c.args0, filepath.Join(top, c.dir)); got != filepath.Join(top, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	link("releases/1", "latest")
	t.Setenv("PWD", "")
	if got := DirByName("./server", top+"/releases/1"); got != top+"/releases/1" {
		t.Errorf("of two links one is chosen: %s", got)
	}
}

// An error names what is missing: the program, or the first directory above it.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir + "/server": "the program is missing: open " + dir + "/server", dir + "/a/b/server": "the directory " + dir + "/a of the program"} {
		if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// File shows what a link led to when the file was opened.
func TestFile(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	b, err := Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	real, _ := filepath.EvalSymlinks(exe)
	if b.File() != real || b.Path() != link {
		t.Errorf("file %s, path %s, want %s and %s", b.File(), b.Path(), real, link)
	}
}
