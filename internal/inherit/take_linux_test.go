package inherit

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dying is a manager that ends before the process that it has started has read its marker, and while another, which it was
// just starting, still has a copy of its end of the control socket.
var dyingProgram = program("dying", func(args []string) {
	control, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	other, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	path, _ := os.Executable()
	env := append(programEnv(takeProgram), args[0]+"="+aMarker(os.Getpid()).String(), "PROGRAM="+path)
	files := []uintptr{0, 1, 2, uintptr(control[0]), uintptr(other[0]), uintptr(other[0]), uintptr(control[1])}
	if _, _, err := syscall.StartProcess("/bin/sh", []string{"sh", "-c", `read line; exec "$PROGRAM"`}, &syscall.ProcAttr{Env: env, Files: files}); err != nil {
		fmt.Println(err)
	}
})

// A worker whose manager has died is none by itself, also where its socket has not ended yet: as a manager it would breed. A successor
// takes over.
func TestTakeAfterDeath(t *testing.T) {
	for name, want := range map[string]string{Env: "role 3, ", SuccessorEnv: "role 2, "} {
		p := start(t, self(t), dyingProgram, []string{name}, nil)
		var info unix.Siginfo
		for err := error(unix.EINTR); err == unix.EINTR; {
			err = unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		}
		fmt.Fprintln(p.in, "now")
		p.in.Close()
		if got := p.text(); !strings.HasPrefix(got, want) || name == Env && !strings.Contains(got, ErrGone.Error()) {
			t.Errorf("%s of a manager that is gone: %s", name, got)
		}
	}
}

// The same as isGone sees it where pidfds are refused.
func TestIsZombie(t *testing.T) {
	p := start(t, self(t), waitProgram, nil, nil)
	p.expect("up")
	if isZombie(p.pid) {
		t.Error("it lives")
	}
	p.in.Close()
	var info unix.Siginfo
	for err := error(unix.EINTR); err == unix.EINTR; {
		err = unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if !isZombie(p.pid) {
		t.Error("it has ended, and nobody has waited for it")
	}
}

// Where memory files are refused, what is passed on lies on a disk, under no name, and nothing that is started has it.
func TestUnlinkedFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	fd, err := unlinkedFile()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := seal(fd); err != nil {
		t.Errorf("it cannot be sealed, and need not be: %v", err)
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
