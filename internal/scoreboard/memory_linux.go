package scoreboard

import (
	"os"

	"golang.org/x/sys/unix"
)

// seal fixes the size of a file. The last seal keeps a worker from adding others: with F_SEAL_FUTURE_WRITE it could keep
// the cell from being mapped.
func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err == unix.EINVAL || err == unix.EPERM { // no memfd: a file on a disk, one on a tmpfs
		return nil
	}
	return os.NewSyscallError("fcntl", err)
}
