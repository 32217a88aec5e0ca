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

	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("hello", helloProgram)
	preforktest.Register("hello without the flag", deniedFlagProgram)
}

// helloProgram starts a process with a table of New and prints the outcome.
// With an argument, the pidfd calls fail with that errno.
func helloProgram() {
	if len(os.Args) > 1 {
		errno, err := strconv.Atoi(os.Args[1])
		check(err)
		const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		execFiltered([]unix.SockFilter{
			{Code: load, K: 0}, // the number of the system call
			{Code: equal, K: unix.SYS_PIDFD_OPEN, Jt: 1},
			{Code: equal, K: unix.SYS_PIDFD_SEND_SIGNAL, Jf: 1},
			{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		})
	}
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
}

// deniedFlagProgram is helloProgram, but clone fails with the errno in the argument
// if CLONE_PIDFD is set, as qemu-user does.
func deniedFlagProgram() {
	if len(os.Args) > 1 {
		errno, err := strconv.Atoi(os.Args[1])
		check(err)
		const load, equal, set, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		execFiltered([]unix.SockFilter{
			{Code: load, K: 0}, // the number of the system call
			{Code: equal, K: unix.SYS_CLONE, Jf: 3},
			{Code: load, K: 16}, // the lower half of the flags, its first argument
			{Code: set, K: unix.CLONE_PIDFD, Jf: 1},
			{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		})
	}
	helloProgram()
}

// needFilter skips the test on processors for which execFiltered is not written.
func needFilter(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		preforktest.Skipf(t, "the seccomp filter of this test is written for amd64 and arm64")
	}
}

// execFiltered installs a seccomp filter and executes the program again without
// arguments, so that the filter applies from its first instruction.
func execFiltered(filter []unix.SockFilter) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		check(errno)
	}
	check(syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ()))
}

func TestNew(t *testing.T) {
	const process = "\"hello\\n\" exit code 3 true"
	t.Run("allowed", func(t *testing.T) {
		if err := probePidfd(); err != nil {
			preforktest.Skipf(t, "no pidfds here: %v", err)
		}
		if out, want := run(t, "hello"), "pidfd\n"+process; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	})
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		t.Run(errno.Error(), func(t *testing.T) {
			needFilter(t)
			want := fmt.Sprintf("portable (pidfd_open: %v)\n", errno) + process
			if out := run(t, "hello", strconv.Itoa(int(errno))); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}

// If the kernel refuses only CLONE_PIDFD, the table opens the pidfds itself.
func TestCloneFlagRefused(t *testing.T) {
	needFilter(t)
	if err := probePidfd(); err != nil {
		preforktest.Skipf(t, "no pidfds here: %v", err)
	}
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EPERM, syscall.ENOSYS, syscall.EACCES} {
		if out, want := run(t, "hello without the flag", strconv.Itoa(int(errno))), "pidfd\n\"hello\\n\" exit code 3 true"; out != want {
			t.Errorf("%v: got %q, want %q", errno, out, want)
		}
	}
}
