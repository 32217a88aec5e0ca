//go:build unix && !solaris && !aix

package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func openTemp(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

// OpenRead accepts a file with several names, but neither a link nor a FIFO.
func TestOpenRead(t *testing.T) {
	d, path := openTemp(t)
	os.WriteFile(filepath.Join(path, "a"), []byte("x"), 0o600)
	os.Link(filepath.Join(path, "a"), filepath.Join(path, "b"))
	os.Symlink("a", filepath.Join(path, "link"))
	unix.Mkfifo(filepath.Join(path, "fifo"), 0o600)
	os.Mkdir(filepath.Join(path, "dir"), 0o700)
	for name, ok := range map[string]bool{"a": true, "b": true, "link": false, "fifo": false, "dir": false, "none": false} {
		f, err := d.OpenRead(name)
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
	if f, err := d.OpenFile("a", unix.O_RDONLY, 0); err == nil {
		f.Close()
		t.Error("OpenFile has opened a file with two names")
	}
}

// Hold follows a link that another user could have placed; Open does not.
func TestHoldFollows(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can own directories as another user")
	}
	top := t.TempDir()
	os.Mkdir(filepath.Join(top, "target"), 0o755)
	os.Mkdir(filepath.Join(top, "theirs"), 0o755)
	os.Symlink("../target", filepath.Join(top, "theirs", "link"))
	os.Chown(filepath.Join(top, "theirs"), 65534, 65534)
	path := filepath.Join(top, "theirs", "link")
	d, err := Hold(path)
	if err != nil {
		t.Fatal(err)
	}
	if d.Path() != path {
		t.Errorf("path %s", d.Path())
	}
	d.Close()
	if d, err := Open(path); err == nil {
		d.Close()
		t.Error("Open has followed the link")
	}
}

// Without hard links, a rename looks first.
func TestLookAndRename(t *testing.T) {
	d, path := openTemp(t)
	for _, name := range []string{"a", "b"} {
		os.WriteFile(filepath.Join(path, name), []byte(name), 0o600)
	}
	os.Symlink("none", filepath.Join(path, "dangling"))
	for _, to := range []string{"b", "dangling"} {
		if err := lookAndRename(d.fd(), "a", to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	if err := lookAndRename(d.fd(), "none", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := lookAndRename(d.fd(), "a", "c"); err != nil {
		t.Error(err)
	}
	if content, _ := os.ReadFile(filepath.Join(path, "c")); string(content) != "a" {
		t.Errorf("%q", content)
	}
}
