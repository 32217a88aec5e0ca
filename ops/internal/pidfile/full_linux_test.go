package pidfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that could not be created is locked by its name, and Restore creates it.
func TestStandIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := tryAcquire(path, lockName, true)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	p.f.Close()
	p.dir.Close()
	if p.dir, p.f, err = standIn(path); err != nil { // as on a full disk
		t.Fatal(err)
	}
	var inUse *nameInUseError
	if _, err := tryAcquire(path, lockName, true); !errors.As(err, &inUse) {
		t.Errorf("second Acquire: %v", err)
	}
	if err := p.Write(); err != nil {
		t.Error(err)
	}
	if got, err := p.Restore(); got != Recreated || err != nil {
		t.Errorf("Restore: %v, %v", got, err)
	}
	if content, err := os.ReadFile(path); string(content) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("%q, %v", content, err)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file still exists")
	}
	// Released without a file.
	if p, err = tryAcquire(path, lockName, true); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	p.f.Close()
	p.dir.Close()
	if p.dir, p.f, err = standIn(path); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
}

// DiskFull recognizes each limit.
func TestDiskFullErrors(t *testing.T) {
	for err, want := range map[error]bool{
		unix.ENOSPC: true, unix.EDQUOT: true, unix.EFBIG: true, unix.EROFS: false, unix.EIO: false, unix.EMFILE: false,
	} {
		if got := DiskFull(fmt.Errorf("x: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if DiskFull(nil) {
		t.Error("nil")
	}
}

// A successor adopts the lock on the name also if the file was removed.
func TestAdoptRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	q, err := Adopt(path, p.File(), p.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := q.Restore(); got != Recreated || err != nil {
		t.Errorf("Restore: %v, %v", got, err)
	}
	q.Release()
}
