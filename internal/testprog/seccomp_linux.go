package testprog

import (
	"log"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CanFilter reports whether the seccomp filters of the tests fit the processor:
// they are written for amd64 and arm64.
const CanFilter = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// InstallFilter installs a seccomp filter in all threads of this process and
// in the processes that it starts, or ends the program.
func InstallFilter(filter []unix.SockFilter) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		log.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		log.Fatal(errno)
	}
}
