//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
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
	if _, err := Adopt(path, f.File(), nil); err != nil {
		t.Errorf("in place: %v", err)
	}
	os.Rename(path, path+".moved")
	os.WriteFile(path, nil, 0o600)
	if _, err := Adopt(path, f.File(), nil); !errors.Is(err, safedir.ErrReplaced) {
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

// Restore repairs a file that was changed, and takes the one to which the path
// leads now.
func TestRestore(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name   string
		change func(top, path string)
		want   Restored
	}{
		{"nothing", func(string, string) {}, Intact},
		{"overwritten", func(_, path string) { must(os.WriteFile(path, []byte("1\n"), 0)) }, Rewritten},
		{"longer", func(_, path string) { must(os.WriteFile(path, append(pidLine(), "rest\n"...), 0)) }, Rewritten},
		{"truncated", func(_, path string) { must(os.Truncate(path, 0)) }, Rewritten},
		{"removed", func(_, path string) { must(os.Remove(path)) }, Recreated},
		{"replaced", func(_, path string) {
			must(os.WriteFile(path+".new", pidLine(), 0o644))
			must(os.Rename(path+".new", path))
		}, Recreated},
		{"moved", func(top, path string) { must(os.Rename(path, filepath.Join(top, "b", "pid"))) }, Recreated},
		{"link switched", func(top, path string) {
			must(os.Symlink("b", filepath.Join(top, "l")))
			must(os.Rename(filepath.Join(top, "l"), filepath.Join(top, "current")))
		}, Recreated},
		{"renamed", func(top, path string) {
			must(os.Rename(filepath.Join(top, "a"), filepath.Join(top, "c")))
			must(os.Mkdir(filepath.Join(top, "a"), 0o755))
		}, Recreated},
	} {
		t.Run(row.name, func(t *testing.T) {
			top := t.TempDir()
			must(os.Mkdir(filepath.Join(top, "a"), 0o755))
			must(os.Mkdir(filepath.Join(top, "b"), 0o755))
			must(os.Symlink("a", filepath.Join(top, "current")))
			path := filepath.Join(top, "current", "pid")
			p, err := Acquire(path)
			must(err)
			defer p.Release()
			file := p.File() // which a worker or a successor may get at any time
			row.change(top, path)
			if got, err := p.Restore(); got != row.want || err != nil {
				t.Errorf("%v, %v, want %v", got, err, row.want)
			}
			if pid, held, err := Holder(path); pid != os.Getpid() || !held || err != nil {
				t.Errorf("holder %d, %v, %v", pid, held, err)
			}
			if got, err := p.Restore(); got != Intact || err != nil {
				t.Errorf("a second time: %v, %v", got, err)
			}
			if p.File() != file || !InPlace(file, path) {
				t.Error("the open file is another one than before")
			}
			if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); flags != unix.FD_CLOEXEC || err != nil {
				t.Errorf("descriptor flags %#x, %v", flags, err)
			}
			for _, dir := range []string{"a", "b", "c"} { // no pid is left in a directory of before
				other := filepath.Join(top, dir, "pid")
				if pid := Read(other); pid != 0 && !p.dirIs(filepath.Dir(other)) {
					t.Errorf("%s has pid %d", other, pid)
				}
			}
		})
	}
}

// dirIs reports whether the file is in the directory.
func (p *File) dirIs(path string) bool {
	held, err := p.dir.Lstat(".")
	var st unix.Stat_t
	return err == nil && unix.Stat(path, &st) == nil && safedir.SameFile(held, &st)
}

// Restore changes nothing if the path leads nowhere, or to a file that is locked.
func TestRestoreImpossible(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "a", "pid")
	os.Mkdir(filepath.Dir(path), 0o755)
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	os.Rename(filepath.Join(top, "a"), filepath.Join(top, "b"))
	var held *HeldError
	if got, err := p.Restore(); got != Intact || err == nil || errors.As(err, &held) {
		t.Errorf("no directory: %v, %v", got, err)
	}
	os.Mkdir(filepath.Join(top, "a"), 0o755)
	other, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := flock(other, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Restore(); got != Intact || !errors.As(err, &held) {
		t.Errorf("locked: %v, %v", got, err)
	}
	os.Remove(path)
	os.Remove(filepath.Join(top, "a"))
	os.Rename(filepath.Join(top, "b"), filepath.Join(top, "a"))
	if got, err := p.Restore(); got != Intact || err != nil {
		t.Errorf("back again: %v, %v", got, err)
	}
}

// Release removes the file from the directory in which it is, also if that has
// another name now.
func TestReleaseAfterRename(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "a", "pid")
	os.Mkdir(filepath.Dir(path), 0o755)
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Rename(filepath.Join(top, "a"), filepath.Join(top, "b"))
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(top, "b", "pid")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// The errors of a pid file that cannot be opened say why.
func TestUnreadableFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open any file")
	}
	path := filepath.Join(t.TempDir(), "pid")
	os.WriteFile(path, []byte("1\n"), 0)
	_, err := Acquire(path)
	if want := "file has mode 0: chmod u+rw, or remove it"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if _, _, err := Holder(path); err == nil || !strings.Contains(err.Error(), "file has mode 0") {
		t.Error(err)
	}
}

// A path that leads to the file again in the middle of Restore is no loss of the
// lock.
func TestRestoreWhileMoved(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "a", "pid")
	os.Mkdir(filepath.Dir(path), 0o755)
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			os.Rename(filepath.Join(top, "a"), filepath.Join(top, "b"))
			os.Rename(filepath.Join(top, "b"), filepath.Join(top, "a"))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 2000 {
		var held *HeldError
		if got, err := p.Restore(); got != Intact || errors.As(err, &held) {
			t.Errorf("%v, %v", got, err)
			break
		}
	}
	close(stop)
	<-stopped
}
