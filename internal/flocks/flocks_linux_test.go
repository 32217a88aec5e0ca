package flocks

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// open opens a file, and locks it if how is not 0.
func open(t *testing.T, path string, how int) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if how != 0 {
		if err := unix.Flock(int(f.Fd()), how); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// The holder of a lock is found, for a file and for a directory, and none for a file
// without one, or with a shared one.
func TestHolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dir} {
		if pid := Holder(open(t, p, 0)); pid != 0 {
			t.Errorf("%s without a lock: process %d", p, pid)
		}
		shared := open(t, p, unix.LOCK_SH)
		if pid := Holder(open(t, p, 0)); pid != 0 {
			t.Errorf("%s with a shared lock: process %d", p, pid)
		}
		shared.Close()
		locked := open(t, p, unix.LOCK_EX)
		if pid := Holder(open(t, p, 0)); pid != os.Getpid() {
			t.Errorf("%s: process %d, want %d", p, pid, os.Getpid())
		}
		locked.Close()
	}
}

func TestHasOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reader := open(t, path, 0)
	var st unix.Stat_t
	if err := unix.Fstat(int(reader.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if has, known := HasOpen(os.Getpid(), &st, reader); has || !known {
		t.Errorf("by the reader alone: %t, %t", has, known)
	}
	other := open(t, path, 0)
	if has, known := HasOpen(os.Getpid(), &st, reader); !has || !known {
		t.Errorf("by another descriptor: %t, %t", has, known)
	}
	other.Close()
	if has, _ := HasOpen(1<<22+1, &st, reader); has {
		t.Error("a process that is not there")
	}
}

// Locks are those of the file, also if the kernel shows another device.
func TestLocks(t *testing.T) {
	f := open(t, t.TempDir(), unix.LOCK_EX)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, l := range locks(&st) {
		if l.pid == os.Getpid() && l.exact {
			own++
		}
	}
	if own != 1 {
		t.Errorf("%d locks of this process: %+v", own, locks(&st))
	}
	st.Dev++
	for _, l := range locks(&st) {
		if l.exact {
			t.Errorf("on another device: %+v", l)
		}
	}
	st.Ino++
	for _, l := range locks(&st) {
		if l.pid == os.Getpid() {
			t.Errorf("on another file: %+v", l)
		}
	}
}
