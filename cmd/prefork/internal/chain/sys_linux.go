package chain

import (
	"os"

	"golang.org/x/sys/unix"
)

// niceOfThread undoes the offset of 20 of the system call.
func niceOfThread() (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - n, err
}

func setNoNewPrivs() error {
	return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
