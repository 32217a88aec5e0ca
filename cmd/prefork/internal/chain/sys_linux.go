package chain

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/resources"
)

// rlimitNumber knows a limit that a pool has not, because Linux ignores it.
func rlimitNumber(name string) (number int, ok bool) {
	if name == "rss" {
		return unix.RLIMIT_RSS, true
	}
	return resources.RlimitNumber(name)
}

// niceOfThread undoes the offset of 20 of the system call.
func niceOfThread() (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - n, err
}

func setNoNewPrivs() error {
	return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
