package fd

import (
	"errors"
	"os"
	"slices"
	"strings"
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

// Each errno is a refusal except those for a lack of memory or descriptors. A
// file on a tmpfs, where the kernel refuses seals with EPERM, needs none.
func TestRefusals(t *testing.T) {
	for errno := unix.Errno(1); errno < 134; errno++ {
		shortage := slices.Contains([]unix.Errno{unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR}, errno)
		if isRefused(errno) == shortage {
			t.Errorf("%v: refused %t", errno, !shortage)
		}
	}
	if isRefused(nil) {
		t.Error("no error is a refusal")
	}
	f, err := os.CreateTemp("/dev/shm", "prefork-")
	if err != nil {
		t.Skip(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if raw, _ := Raw(f); seal(int(raw)) != nil {
		t.Errorf("seals of a file on a tmpfs: %v", seal(int(raw)))
	}
}

// A limit on the size of files is named, before the kernel sends a SIGXFSZ.
func TestFileSizeLimit(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	fd, err := NewBlob([]byte("passed"))
	if fd != -1 || !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "RLIMIT_FSIZE is 0") {
		t.Errorf("%d, %v", fd, err)
	}
	if fd, err := NewBlob(nil); err != nil {
		t.Errorf("no bytes: %v", err)
	} else {
		unix.Close(fd)
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
