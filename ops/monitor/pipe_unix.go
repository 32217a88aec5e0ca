//go:build unix && !linux

package monitor

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func enlarge(uintptr) {}

// pending reports whether there is something in a pipe: 1, or 0.
func pending(fd uintptr) int {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 1 || err != nil || fds[0].Revents&unix.POLLIN == 0 {
		return 0
	}
	return 1
}

func setNewPIDs(*syscall.SysProcAttr) {} // Linux only
