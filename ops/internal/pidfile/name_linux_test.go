package pidfile

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
)

// A second process is refused while the file is missing, with the holder's pid.
func TestNameLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	var inUse *nameInUseError
	if _, err := tryAcquire(path, lockName, false); !errors.As(err, &inUse) || inUse.pid != os.Getpid() {
		t.Errorf("%v, want the name to be in use by process %d", err, os.Getpid())
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the refused process has made a file")
	}
	var held *HeldError
	if _, err := Acquire(path); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("%v, want a HeldError of process %d", err, os.Getpid())
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if p, err = Acquire(path); err != nil {
		t.Fatal(err)
	}
	p.Release()
}

// A process whose pid file was removed or replaced, or whose directory was
// renamed, is found by the name before it notices.
func TestHolderByName(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "dir")
	path := filepath.Join(dir, "pid")
	os.Mkdir(dir, 0o755)
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string) {
		t.Helper()
		if pid, held, err := Holder(path); pid != os.Getpid() || !held || err != nil {
			t.Errorf("%s: holder %d, %t, %v", how, pid, held, err)
		}
		if pid, err := Signal(path, syscall.Signal(0)); pid != os.Getpid() || err != nil {
			t.Errorf("%s: signalled %d, %v", how, pid, err)
		}
	}
	os.Remove(path)
	check("removed")
	os.WriteFile(path, []byte("1\n"), 0o644)
	check("replaced")
	os.Rename(dir, dir+"2")
	check("directory renamed")
	os.Rename(dir+"2", dir)
	t.Chdir(dir)
	if pid, held, err := Holder("pid"); pid != os.Getpid() || !held || err != nil {
		t.Errorf("by a relative path: holder %d, %t, %v", pid, held, err)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if pid, held, err := Holder(path); held || err != nil {
		t.Errorf("after Release: holder %d, %t, %v", pid, held, err)
	}
}

// TestMain is also the program of TestHolderHasPassedName.
func TestMain(m *testing.M) {
	if os.Getenv("PIDFILE_CLAIM") != "" {
		if err := unix.Listen(3, unix.SOMAXCONN); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The pid of a process that has passed the lock on its name on, and has exited, is
// not reported. It may be another process's by now.
func TestHolderHasPassedName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	os.Remove(path)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "PIDFILE_CLAIM=1")
	c.ExtraFiles = []*os.File{p.Name()}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if pid, _, err := peer(nameAddress(path)); pid != c.Process.Pid || err != nil {
		t.Fatalf("the kernel has process %d as the holder: %v", pid, err)
	}
	if pid, held, err := Holder(path); pid != 0 || !held || err != nil {
		t.Errorf("holder %d, %t, %v", pid, held, err)
	}
	var held *HeldError
	if _, err := Acquire(path); !errors.As(err, &held) || held.PID != 0 {
		t.Errorf("%v, want a HeldError without a pid", err)
	}
	if pid, err := Signal(path, syscall.Signal(0)); pid != 0 || err != nil {
		t.Errorf("signalled %d, %v", pid, err)
	}
	if err := p.Write(); err != nil {
		t.Fatal(err)
	}
	if pid, held, err := Holder(path); pid != os.Getpid() || !held || err != nil {
		t.Errorf("after Write: holder %d, %t, %v", pid, held, err)
	}
}

// The lock on a name lasts until all processes that have it close it.
func TestAdoptName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	dup := func(f *os.File) *os.File {
		t.Helper()
		raw, err := fd.Raw(f) // Fd would make the socket block
		if err != nil {
			t.Fatal(err)
		}
		n, err := unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(n), f.Name())
	}
	q, err := Adopt(path, dup(p.File()), dup(p.Name()))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	os.Remove(path)
	var inUse *nameInUseError
	if _, err := tryAcquire(path, lockName, false); !errors.As(err, &inUse) {
		t.Errorf("after the first has closed it: %v", err)
	}
	if err := q.Release(); err != nil {
		t.Error(err)
	}
	if p, err = tryAcquire(path, lockName, false); err != nil {
		t.Fatalf("after both have closed it: %v", err)
	}
	p.Release()
}

// Another user who has taken the address of a name keeps no process from
// starting.
func TestNameOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	path := filepath.Join(t.TempDir(), "pid")
	done := make(chan error)
	var squatter net.Listener
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		var err error
		squatter, err = net.ListenUnix("unix", nameAddress(path))
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	p, err := tryAcquire(path, lockName, false)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != nil {
		t.Error("the name is locked twice")
	}
	p.Release()

	// That user does not run the service either, unless the directory is theirs.
	if pid, held, err := Holder(path); held || err != nil {
		t.Errorf("of another user: holder %d, %t, %v", pid, held, err)
	}
	dir := filepath.Dir(path)
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if pid, held, err := Holder(path); pid != os.Getpid() || !held || err != nil {
		t.Errorf("of the owner of the directory: holder %d, %t, %v", pid, held, err)
	}
	// A process of root's can be led to listen by no other user.
	if pid, err := Signal(path, syscall.Signal(0)); pid != os.Getpid() || err == nil {
		t.Errorf("process %d of root was signalled for another user: %v", pid, err)
	}
	os.Chmod(dir, 0o777|os.ModeSticky)
	if pid, held, err := Holder(path); held || err != nil {
		t.Errorf("of the owner of a directory for all: holder %d, %t, %v", pid, held, err)
	}
}

// Neither does a process that has the address and does not listen.
func TestSilentName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := unix.Bind(sock, &unix.SockaddrUnix{Name: nameAddress(path).Name}); err != nil {
		t.Fatal(err)
	}
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if p.Name() != nil {
		t.Error("the name is locked twice")
	}
}

// Restore empties the queue of processes that have asked who holds the name.
func TestNameIsAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for range 3 {
		full := false
		for range 10000 {
			_, _, err := peer(nameAddress(path))
			if full = err != nil; full {
				break
			}
		}
		if !full {
			t.Skip("the queue takes 10,000 connections")
		}
		p.Restore()
		if pid, _, err := peer(nameAddress(path)); pid != os.Getpid() || err != nil {
			t.Fatalf("after Restore: process %d, %v", pid, err)
		}
	}
}

// A path is another name in another directory, and the same by any spelling.
func TestNameAddress(t *testing.T) {
	a, b := nameAddress("/run/a.pid"), nameAddress("/run/b.pid")
	if a.Name == b.Name || a.Name != nameAddress("/run/a.pid").Name {
		t.Errorf("%s, %s", a, b)
	}
	if len(a.Name) > 100 {
		t.Errorf("%s is longer than a socket's address", a)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	p, err := Acquire("pid")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	t.Chdir("/")
	if got, err := p.Restore(); got != Intact || err != nil {
		t.Errorf("after chdir: %v, %v", got, err)
	}
	if pid, held, err := Holder(filepath.Join(dir, "pid")); pid != os.Getpid() || !held || err != nil {
		t.Errorf("holder %d, %v, %v", pid, held, err)
	}
}
