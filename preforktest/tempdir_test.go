//go:build unix

package preforktest

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listen makes a Unix socket, which stays in the directory after Close.
func listen(t testing.TB, dir, name string) {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"}
	ln, err := net.ListenUnix("unix", address)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func wantRemoved(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s is not removed: %v", path, err)
	}
}

func TestTempDir(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() { TempDir(ft) })
	ft.wantErrors(t)

	ft = &fakeT{}
	var dir string
	ft.run(func() {
		dir = TempDir(ft)
		listen(t, dir, "sock")
	})
	ft.wantErrors(t, filepath.Join(dir, "sock")+" (S")
	wantRemoved(t, dir)
}

// With a TMPDIR of any length, and with spaces in it, directories are at most
// maxSocketDir long. A socket in them may have a name of 22 bytes.
func TestSocketDirInLongTMPDIR(t *testing.T) {
	name := strings.Repeat("s", 22)
	for kind, tmp := range map[string]string{
		"130 characters": strings.Repeat("x", 130),
		"66 characters":  strings.Repeat("y", 66),
		"spaces":         "a b  c ",
	} {
		t.Run(kind, func(t *testing.T) {
			parent := shortDir(t)
			defer os.RemoveAll(parent)
			if kind != "spaces" {
				tmp = tmp[:len(tmp)-len(parent)-1]
			}
			tmp := filepath.Join(parent, tmp)
			if err := os.Mkdir(tmp, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TMPDIR", tmp)
			var dirs []string
			ft := &fakeT{tempDir: filepath.Join(tmp, "test", "001")}
			if err := os.MkdirAll(ft.tempDir, 0o700); err != nil {
				t.Fatal(err)
			}
			ft.run(func() {
				dirs = append(dirs, SocketDir(ft), TempDir(ft))
				for _, dir := range dirs {
					listen(t, dir, name)
					if len(dir) > 80 {
						t.Errorf("%s has %d bytes, want at most 80", dir, len(dir))
					}
				}
			})
			ft.wantErrors(t, "leftover file: "+filepath.Join(dirs[1], name))
			for _, dir := range dirs {
				if dir != ft.tempDir { // package testing removes that one
					wantRemoved(t, dir)
				}
			}
			if kind == "spaces" && dirs[0] != ft.tempDir {
				t.Errorf("directory %q, want the short one of the test, %q", dirs[0], ft.tempDir)
			}
			wantEmpty(t, tmp)
		})
	}
}

// wantEmpty reports files left in dir, except the directory of the fake test.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	os.RemoveAll(filepath.Join(dir, "test"))
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		if path != dir {
			t.Errorf("leftover file: %s", path)
		}
		return nil
	})
}

// The end of a real test removes the directory.
func TestSocketDirIsRemoved(t *testing.T) {
	for _, name := range []string{"short", strings.Repeat("long", 30)} {
		var dir string
		t.Run(name, func(t *testing.T) {
			dir = SocketDir(t)
			listen(t, dir, "s")
		})
		wantRemoved(t, dir)
	}
}

// A directory of 80 bytes (maxSocketDir) is short enough, one of 81 is not.
func TestMaxSocketDir(t *testing.T) {
	parent := shortDir(t)
	defer os.RemoveAll(parent)
	directory := func(length int) string {
		dir := filepath.Join(parent, strings.Repeat("z", length-len(parent)-1))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for length, kept := range map[int]bool{80: true, 81: false} {
		ft := &fakeT{tempDir: directory(length)}
		ft.run(func() {
			if dir := SocketDir(ft); (dir == ft.tempDir) != kept {
				t.Errorf("t.TempDir() of %d bytes, SocketDir %q", length, dir)
			}
		})
		ft.wantErrors(t)
	}
	// MkdirTemp adds up to 14 bytes.
	for length, kept := range map[int]bool{66: true, 67: false} {
		tmp := directory(length)
		t.Setenv("TMPDIR", tmp)
		dir := shortDir(t)
		defer os.RemoveAll(dir)
		if (filepath.Dir(dir) == tmp) != kept {
			t.Errorf("TMPDIR of %d bytes, directory %q", length, dir)
		}
	}
}
