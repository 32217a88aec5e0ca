//go:build unix

package fd

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func isCloseOnExec(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.FD_CLOEXEC != 0
}

func TestDuplicate(t *testing.T) {
	read := pipes(t, 1)[0]
	fd, err := Duplicate(uintptr(read))
	if err != nil || fd < first || fd == read || !same(t, fd, read) || !isCloseOnExec(t, fd) {
		t.Errorf("duplicate of %d: %d, %v", read, fd, err)
	}
	Close(fd)
	if n, err := Duplicate(uintptr(fd)); n != -1 || err == nil {
		t.Errorf("duplicate of a closed descriptor: %d, %v", n, err)
	}
}

func TestIsStream(t *testing.T) {
	read := pipes(t, 1)[0]
	if IsStream(uintptr(read)) {
		t.Error("a close-on-exec descriptor counts as a stream")
	}
	if _, err := unix.FcntlInt(uintptr(read), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	if !IsStream(uintptr(read)) {
		t.Error("an inheritable descriptor does not count as a stream")
	}
	if IsStream(1 << 20) {
		t.Error("a closed descriptor counts as a stream")
	}
}

func TestSetBlocking(t *testing.T) {
	l := newLine(t)
	for _, blocking := range []bool{true, false, true} {
		if err := SetBlocking(l.fd, blocking); err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 != blocking {
			t.Errorf("SetBlocking(%t): flags %#x, %v", blocking, flags, err)
		}
	}
}

// LockDir excludes a second holder until unlock is called. The first one keeps
// the directory open.
func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	open := func(flags int) uintptr {
		t.Helper()
		fd, err := unix.Open(dir, flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return uintptr(fd)
	}
	first, second := open(unix.O_RDONLY), open(unix.O_RDONLY)
	unlock, err := LockDir(first, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(second, dir); err == nil || !strings.Contains(err.Error(), "another program holds a lock") {
		t.Errorf("locked twice: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, unlock)
	unlock, err = LockDir(second, dir)
	if err != nil {
		t.Fatalf("unlocked during the wait: %v", err)
	}
	unlock()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// ReadBlob returns the data from its start, wherever the shared offset is.
func TestBlob(t *testing.T) {
	for _, data := range [][]byte{nil, []byte("passed"), bytes.Repeat([]byte("0123456789"), 100_000)} {
		fd, err := NewBlob(data)
		if err != nil {
			t.Fatal(err)
		}
		defer Close(fd)
		if !isCloseOnExec(t, fd) {
			t.Error("a blob is not close-on-exec")
		}
		if _, err := unix.Seek(fd, 3, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := ReadBlob(fd); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
			}
		}
	}
	if _, err := ReadBlob(1 << 20); err == nil || !strings.Contains(err.Error(), "passed on by the manager") {
		t.Errorf("closed descriptor: %v", err)
	}
}
