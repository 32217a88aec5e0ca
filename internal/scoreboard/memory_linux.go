package scoreboard

import (
	"os"

	"golang.org/x/sys/unix"
)

// seal fixes the size of a file. F_SEAL_SEAL prevents a worker from adding
// seals: with F_SEAL_FUTURE_WRITE it could keep the cell from being mapped.
func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err == unix.EINVAL || err == unix.EPERM { // not a memfd: a file on a disk or on a tmpfs
		return nil
	}
	return os.NewSyscallError("fcntl", err)
}
