package inherit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isParent compares the parent with the process that made the control socket, both as this process sees them: in a PID
// namespace of its own a worker sees neither (both are 0), and the marker holds the pid that the manager sees.
func isParent(m Marker) bool {
	peer, err := unix.GetsockoptUcred(m.Control, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return false
	}
	pid := int(peer.Pid)
	return pid == os.Getppid() && (pid == 0 || pid == m.Manager)
}

// isGone tells whether the process that made the control socket has ended. It gives it a moment: its children get another
// parent just before its end can be seen. One that carries the marker of somebody else's worker waits so long for nothing,
// 0.1 s before its main.
func isGone(m Marker) bool {
	peer, err := unix.GetsockoptUcred(m.Control, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Pid <= 0 { // not of this PID namespace
		return false
	}
	fd, err := unix.PidfdOpen(int(peer.Pid), 0)
	if err != nil { // an old kernel or a seccomp filter, or no such process
		return unix.Kill(int(peer.Pid), 0) == unix.ESRCH || isZombie(int(peer.Pid))
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// isZombie tells whether a process has ended and nobody has waited for it. Its state stands behind its name, in parentheses.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return err == nil && (bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X")))
}

// AnonymousFile is an empty file without a name, close-on-exec, in memory where the system has such.
func AnonymousFile() (int, error) {
	fd, err := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == unix.ENOSYS || err == unix.EPERM { // an old kernel, or a seccomp filter
		return unlinkedFile()
	}
	return fd, os.NewSyscallError("memfd_create", err)
}

// NoMemoryFiles is why AnonymousFile gives files on a disk; nil where they are in memory.
func NoMemoryFiles() error {
	fd, err := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		unix.Close(fd)
	} else if err != unix.ENOSYS && err != unix.EPERM {
		err = nil // another time it can succeed
	}
	return os.NewSyscallError("memfd_create", err)
}

// seal makes what is passed on immutable: a worker that could shrink it would kill the others that read it.
func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	if err == unix.EINVAL { // no memfd
		return nil
	}
	return os.NewSyscallError("fcntl", err)
}

// setName names the first thread, which is the one that ps shows: a process started by way of /proc/self/exe is called
// "exe" until then.
func setName(name string) {
	b := append([]byte(name), 0)
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}

// Executable is a path by which the program that runs here can be run again, also when its file was replaced or
// deleted.
func Executable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// StartPath is the path by which the file is started in a new process that has it at descriptor childFD. The process is
// called by that number in ps until it has named itself, and a script finds it in $0.
func (b *Binary) StartPath(childFD int) string {
	path := "/proc/self/fd/" + strconv.Itoa(childFD)
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return b.path
	}
	return path
}

// HideDepth removes the depth from the environment of a worker that has reached its work, so that nothing of ours is left
// there: Depth finds it among the ancestors, where it still stands in the environment that they were started with. Until
// then it stays, since a program that replaces itself in main's prelude has its own old environment for an ancestor.
func HideDepth() { os.Unsetenv(DepthEnv) }

// Restarted tells whether the process runs this very program, or the file that it was started from where that is another
// (nil where it is not), and was not given a marker when it began to: a worker that has replaced itself by itself, and now
// takes itself for a manager.
func Restarted(pid int, startedFrom *Binary) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || !isThisProgram(theirs) && (startedFrom == nil || !os.SameFile(theirs, startedFrom.info)) {
		return false
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	_, worker := lookup(environ, Env)
	return !worker
}

// isThisProgram compares with the file of a process's program; one that is about to end has none any more.
func isThisProgram(theirs os.FileInfo) bool {
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(ours, theirs)
}
