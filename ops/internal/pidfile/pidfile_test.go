//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Acquire withdraws the write permission of other users.
func TestAcquireMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	os.WriteFile(path, nil, 0o600)
	os.Chmod(path, 0o664)
	f, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Adopt refuses a file that is no longer at the path: a process that starts
// would not find its lock.
func TestAdoptReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	f, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if _, err := Adopt(path, f.File()); err != nil {
		t.Errorf("in place: %v", err)
	}
	os.Rename(path, path+".moved")
	os.WriteFile(path, nil, 0o600)
	if _, err := Adopt(path, f.File()); !errors.Is(err, errReplaced) {
		t.Errorf("replaced: %v", err)
	}
}

// Release does not remove the file of another process.
func TestReleaseReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	f, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Rename(path, path+".moved")
	os.WriteFile(path, []byte("1\n"), 0o600)
	if err := f.Release(); err != nil {
		t.Error(err)
	}
	if pid := Read(path); pid != 1 {
		t.Errorf("the new file contains pid %d", pid)
	}
}

// Write leaves no rest of a longer pid.
func TestWriteShorter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	os.WriteFile(path, []byte("1234567890\n99\n"), 0o600)
	f, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if content, _ := os.ReadFile(path); string(content) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("%q", content)
	}
}
