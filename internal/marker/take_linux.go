package marker

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// isParent reports whether the parent of this process made the control socket. It
// compares pids in the PID namespace of this process: in a namespace of its own,
// a worker sees 0 for both, and the marker holds the pid that the manager sees.
func isParent(m Marker) bool {
	peer, err := unix.GetsockoptUcred(m.Control, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return false
	}
	pid := int(peer.Pid)
	return pid == os.Getppid() && (pid == 0 || pid == m.Manager)
}

// isGone reports whether the process that made the control socket has ended. It
// waits up to 0.1 s: the kernel gives the children of a process another parent
// just before its end is visible. Only a process with the marker of another
// process's worker waits that long in vain, before its main.
func isGone(m Marker) bool {
	peer, err := unix.GetsockoptUcred(m.Control, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Pid <= 0 { // in another PID namespace
		return false
	}
	fd, err := unix.PidfdOpen(int(peer.Pid), 0)
	if err != nil { // an old kernel, a seccomp filter, or no such process
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

// isZombie reports whether a process has ended but was not reaped. Its state
// follows its name, which is in parentheses.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return err == nil && (bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X")))
}
