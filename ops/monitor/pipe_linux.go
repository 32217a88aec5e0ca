package monitor

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize lets a service write on while its logger is started again.
const pipeSize = 1 << 20

// enlarge makes a pipe larger, if the system allows it.
func enlarge(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) }

// pending returns the number of bytes in a pipe.
func pending(fd uintptr) int {
	n, _ := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	return n
}

// setNewPIDs starts a process as the first one of a namespace of pids.
func setNewPIDs(attr *syscall.SysProcAttr) { attr.Cloneflags |= syscall.CLONE_NEWPID }
