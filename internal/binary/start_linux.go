package binary

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Executable returns a path by which the program of this process can be started
// again, even after its file was replaced or deleted.
func Executable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// StartPath returns the path by which a new process that has the file at
// descriptor childFD starts it. Until the process calls SetName, ps shows that
// number as its name; a script sees the path in $0.
func (b *Binary) StartPath(childFD int) string {
	path := "/proc/self/fd/" + strconv.Itoa(childFD)
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return b.path
	}
	return path
}

// Runs reports whether process pid runs the program of this process, or other
// if that is not nil. It returns false for a process that is exiting.
func Runs(pid int, other *Binary) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(ours, theirs) || other != nil && os.SameFile(theirs, other.info)
}

// setName names the first thread, which is the one that ps shows. Until then, a
// process started by /proc/self/exe is called "exe".
func setName(name string) {
	b := append([]byte(name), 0)
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}
