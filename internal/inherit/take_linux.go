package inherit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
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

func anonymousFile() (int, error) {
	fd, err := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == unix.ENOSYS || err == unix.EPERM { // an old kernel, or a seccomp filter
		return unlinkedFile()
	}
	return fd, os.NewSyscallError("memfd_create", err)
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

// HideDepth removes the depth from the environment of a worker that has reached its work, so that nothing of ours is left
// there: Depth finds it among the ancestors, where it still stands in the environment that they were started with. Until
// then it stays, since a program that replaces itself in main's prelude has its own old environment for an ancestor.
func HideDepth() { os.Unsetenv(DepthEnv) }

// Restarted tells whether the process runs this very program, and was not given a marker when it began to: a worker that
// has replaced itself by itself, and now takes itself for a manager.
func Restarted(pid int) bool {
	if !runsThisProgram(pid) {
		return false
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	_, worker := lookup(environ, Env)
	return !worker
}

// Depth is how many managers there are above this process: the larger of what the variable says and of what can be seen.
//
// A worker's environment is clean, so what it starts has no variable; but the kernel keeps the environment that each
// ancestor was started with. And where a wrapper emptied that too (env -i), there are still the ancestors that run this
// very program and are no workers. What cannot be read (another user's process) is passed over.
func Depth() (int, error) {
	value, found := os.LookupEnv(DepthEnv)
	seen := 0
	for pid, hops := os.Getppid(), 0; pid > 0 && hops < 64; hops++ {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			if _, worker := lookup(environ, Env); !worker && runsThisProgram(pid) {
				seen++
			}
			if !found {
				value, found = lookup(environ, DepthEnv)
			}
		}
		if pid, err = parentOf(pid); err != nil {
			break
		}
	}
	if !found {
		return seen, nil
	}
	depth, err := parseDepth(value)
	return max(depth, seen), err
}

// lookup finds a variable in an environment as the kernel keeps it.
func lookup(environ []byte, name string) (value string, ok bool) {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(kv, []byte(name+"=")); ok {
			return string(value), true
		}
	}
	return "", false
}

// runsThisProgram says no of a process that is about to end: it has no program any more.
func runsThisProgram(pid int) bool {
	ours, err1 := os.Stat("/proc/self/exe")
	theirs, err2 := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err1 == nil && err2 == nil && os.SameFile(ours, theirs)
}

func parentOf(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name, in parentheses, and may itself hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	return strconv.Atoi(fields[1])
}
