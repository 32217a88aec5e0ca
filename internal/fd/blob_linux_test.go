package fd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// No worker can change the data that the other workers read.
func TestBlobIsSealed(t *testing.T) {
	if err := CheckMemoryFiles(); err != nil {
		t.Skip(err)
	}
	fd, err := NewBlob([]byte("passed"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err != unix.EPERM {
		t.Errorf("write: %v", err)
	}
	for _, size := range []int64{1, 100} {
		if err := unix.Ftruncate(fd, size); err != unix.EPERM {
			t.Errorf("truncate to %d bytes: %v", size, err)
		}
	}
}

// If the kernel refuses memory files, the blob is a file on a disk. It has no
// name, and no new process inherits it.
func TestUnlinkedFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	fd, err := unlinkedFile()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !isCloseOnExec(t, fd) {
		t.Error("the file is not close-on-exec")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := seal(fd); err != nil {
		t.Errorf("a file on a disk needs no seal: %v", err)
	}
	if _, err := unix.Pwrite(fd, []byte("passed"), 0); err != nil {
		t.Error(err)
	}
	if data, err := ReadBlob(fd); string(data) != "passed" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	t.Setenv("TMPDIR", dir+"/nowhere")
	if fd, err := unlinkedFile(); err == nil || fd != -1 {
		t.Errorf("%d, %v", fd, err)
	}
}

// If the program has closed its standard input, a blob does not get descriptor
// 0, which stands for no data.
func TestBlobIsNoStream(t *testing.T) {
	stdin, err := Duplicate(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stdin)
	unix.Close(0)
	defer unix.Dup3(stdin, 0, 0)
	fd, err := NewBlob([]byte("passed"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if fd < first || !isCloseOnExec(t, fd) {
		t.Errorf("descriptor %d, close-on-exec %v", fd, isCloseOnExec(t, fd))
	}
	if data, err := ReadBlob(fd); string(data) != "passed" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}
