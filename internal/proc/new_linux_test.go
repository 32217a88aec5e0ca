package proc

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The program denied installs a seccomp filter that makes the pidfd calls fail
// with the errno in its argument. It then executes the program hello, so that
// the filter applies from its first instruction.
var deniedProgram = program("denied", func(args []string) {
	errno, _ := strconv.Atoi(args[0])
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // the number of the system call
		{Code: equal, K: unix.SYS_PIDFD_OPEN, Jt: 1},
		{Code: equal, K: unix.SYS_PIDFD_SEND_SIGNAL, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	check(setFilter(&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
	self, err := os.Executable()
	check(err)
	check(syscall.Exec(self, []string{"hello"}, programEnv(helloProgram)))
})

func setFilter(prog *unix.SockFprog) error {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

// The program hello starts a process with a table of New and prints the
// outcome.
var helloProgram = program("hello", func([]string) {
	notes := make(chan Note, 10)
	table := New(func(n Note) { notes <- n })
	fmt.Println(table.Name())
	p, err := table.Start(1, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "echo hello >&3; exit 3"}, Files: []uintptr{0, 1, 2, 0}, Control: 3, DieWithParent: true})
	check(err)
	for n := range notes {
		if n.Kind == Exited {
			break
		}
	}
	check(p.Signal(syscall.SIGTERM))
	buf := make([]byte, 100)
	n, err := p.Read(buf)
	check(err)
	status, _, ok := p.Reap()
	fmt.Printf("%q %v %v\n", buf[:n], status, ok)
	check(table.Close())
})

func TestNew(t *testing.T) {
	const process = "\"hello\\n\" exit code 3 true\n"
	t.Run("allowed", func(t *testing.T) {
		if err := probePidfd(); err != nil {
			t.Skipf("no pidfds here: %v", err)
		}
		if out, want := run(t, helloProgram), "pidfd\n"+process; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	})
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		t.Run(errno.Error(), func(t *testing.T) {
			if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
				programs.used[deniedProgram] = true
				t.Skip("the seccomp filter of this test is written for amd64 and arm64")
			}
			want := fmt.Sprintf("portable (pidfd_open: %v)\n", errno) + process
			if out := run(t, deniedProgram, strconv.Itoa(int(errno))); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
