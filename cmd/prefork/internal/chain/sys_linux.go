package chain

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/resources"
)

// rlimitNumber knows a limit that a pool has not, because Linux ignores it.
func rlimitNumber(name string) (number int, ok bool) {
	if name == "rss" {
		return unix.RLIMIT_RSS, true
	}
	return resources.RlimitNumber(name)
}

// niceOfThread undoes the offset of 20 of the system call.
func niceOfThread() (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - n, err
}

func setNoNewPrivs() error {
	return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// enter changes the limits and executes the first of the paths that can be. It
// returns only after a failure, with the path at which that was, or "" if there is
// no file; refused is whether one may not be executed. With the limits, the Go
// runtime may not get any more memory or thread. So nothing between them and the
// end of this function may need any: it makes system calls only.
func enter(changes []change, paths, argv, env []string) (path string, refused bool, err error) {
	// The runtime has raised the soft limit of open files. Package syscall sets it
	// back for an execution, also one that fails.
	syscall.Exec("", argv, nil)
	argvp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return paths[0], false, err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return paths[0], false, err
	}
	pathsp, err := syscall.SlicePtrFromStrings(paths)
	if err != nil {
		return paths[0], false, err
	}
	at, errno := -1, syscall.ENOENT
	for i := range changes {
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(changes[i].number), uintptr(unsafe.Pointer(&changes[i].after)), 0, 0, 0)
	}
	for i := range paths {
		_, _, failed := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(pathsp[i])), uintptr(unsafe.Pointer(&argvp[0])), uintptr(unsafe.Pointer(&envp[0])))
		refused = refused || failed == syscall.EACCES || failed == syscall.EPERM
		if at, errno = i, failed; !goesOn(failed) {
			break
		}
	}
	for i := range changes {
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(changes[i].number), uintptr(unsafe.Pointer(&changes[i].before)), 0, 0, 0)
	}
	if goesOn(errno) {
		return "", refused, errno
	}
	return paths[at], refused, errno
}
