package preforktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// maxSocketDir bounds the path of a directory for Unix sockets. The address of
// a socket holds 107 bytes on Linux and 103 on BSD and macOS, so 80 leave
// room for a name of 22.
const maxSocketDir = 80

// SocketDir returns a directory for Unix sockets, which is removed when the
// test ends. It is t.TempDir(), or a shorter one if that path is longer than 80
// bytes: an address that is too long fails with "invalid argument". The name of
// a socket may have 22 bytes. SocketDir fails the test if there is no short
// directory.
func SocketDir(t testing.TB) string {
	t.Helper()
	if dir := t.TempDir(); len(dir) <= maxSocketDir {
		return dir
	}
	dir := shortDir(t)
	t.Cleanup(func() {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("preforktest: %v", err)
		}
	})
	return dir
}

// TempDir returns a new directory for files that the programs of a test must
// remove themselves: sockets, pid files, temporary files. When the test ends,
// each file that is left in it fails the test with t.Errorf, and the directory
// is removed. Its path is short enough for Unix sockets, as that of SocketDir
// is. TempDir must be called before Start, because cleanups run in reverse
// order. It fails the test if the directory cannot be made.
func TempDir(t testing.TB) string {
	t.Helper()
	dir := shortDir(t)
	t.Cleanup(func() {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && path != dir {
				t.Errorf("preforktest: leftover file: %s (%v)", path, entry.Type())
			}
			return err
		})
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Errorf("preforktest: %v", err)
		}
	})
	return dir
}

// shortDir makes a directory with a path of at most maxSocketDir bytes, in
// os.TempDir if that is short enough.
func shortDir(t testing.TB) string {
	t.Helper()
	err := fmt.Errorf("%s is too long", os.TempDir())
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		const name = len("/pft") + len("4294967295") // MkdirTemp adds a uint32
		if len(parent)+name > maxSocketDir {
			continue
		}
		var dir string
		if dir, err = os.MkdirTemp(parent, "pft"); err == nil {
			return dir
		}
	}
	t.Fatalf("preforktest: no directory for Unix sockets: set TMPDIR to a shorter path: %v", err)
	return ""
}
