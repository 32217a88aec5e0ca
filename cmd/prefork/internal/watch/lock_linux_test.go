package watch

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// The lock on a directory that has lost its name is given back at once, also while a
// process that is being started has its descriptor.
func TestEnterUnlocks(t *testing.T) {
	base := t.TempDir()
	dir, other := filepath.Join(base, "services"), filepath.Join(base, "other")
	for _, d := range []string{dir, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exchange := func() {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	p := &plan{Options: Options{Dir: dir}}
	enter := p.enter()
	exchange()
	if err := enter(); err != nil {
		t.Fatal(err)
	}
	fd := descriptorOf(t, dir)
	held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // as a fork has
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := lockable(dir); err != unix.EWOULDBLOCK {
		t.Errorf("the lock on the new directory: %v", err)
	}
	if err := enter(); err != nil { // the same directory again
		t.Fatal(err)
	}
	unix.Flock(held, unix.LOCK_UN)
	if err := lockable(dir); err != nil {
		t.Errorf("the same directory was unlocked and locked again: %v", err)
	}
	unix.Flock(held, unix.LOCK_EX|unix.LOCK_NB)
	exchange()
	if err := enter(); err != nil {
		t.Fatal(err)
	}
	if err := lockable(other); err != nil {
		t.Errorf("the lock on the directory that has lost its name: %v", err)
	}
}

// descriptorOf returns the descriptor of this process that leads to a directory.
func descriptorOf(t *testing.T, dir string) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == dir {
			fd, _ := strconv.Atoi(e.Name())
			return fd
		}
	}
	t.Fatal("no descriptor of " + dir)
	return 0
}

// lockable locks a directory for a moment.
func lockable(dir string) error {
	f, err := openDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB)
}
