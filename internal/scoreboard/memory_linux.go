package scoreboard

import (
	"os"

	"golang.org/x/sys/unix"
)

// seal fixes the size of a file. F_SEAL_SEAL prevents a worker from adding
// seals: with F_SEAL_FUTURE_WRITE it could keep the cell from being mapped.
func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	switch err {
	case unix.ENOMEM, unix.EBADF, unix.EBUSY:
		return os.NewSyscallError("fcntl", err)
	}
	return nil // or not a memfd: a file on a disk, or EPERM on a tmpfs
}
