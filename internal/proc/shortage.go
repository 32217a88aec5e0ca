package proc

import (
	"errors"
	"fmt"
	"syscall"
)

// shortages are the errors for which a process cannot be started for want of
// something, and how to get more of it. The errno does not name the limit.
var shortages = []struct {
	errno syscall.Errno
	mend  string
}{
	{syscall.EAGAIN, "raise the limit of processes and threads of the user (ulimit -u, LimitNPROC) or of the cgroup (pids.max, TasksMax)"},
	{syscall.EMFILE, "raise the limit of open files (ulimit -n, LimitNOFILE)"},
	{syscall.ENFILE, "raise the limit of open files of the system (sysctl fs.file-max)"},
	{syscall.ENOMEM, ""},
	{syscall.ENOSPC, ""},
}

// Shortage reports whether a process could not be started for want of memory,
// processes or descriptors, and returns err with the way to get more.
func Shortage(err error) (explained error, ok bool) {
	for _, s := range shortages {
		switch {
		case !errors.Is(err, s.errno):
		case s.mend == "":
			return err, true
		default:
			return fmt.Errorf("%w: %s", err, s.mend), true
		}
	}
	return err, false
}
