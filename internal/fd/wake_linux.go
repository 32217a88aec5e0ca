package fd

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// WakeThreads makes system calls that block in a thread of this process start
// again: the kernel restarts them after a signal whose handler has SA_RESTART. So
// an accept that began while its socket was blocking returns, if the socket no
// longer is. The signal is the one by which the Go runtime preempts its threads,
// so it has no other effect.
func WakeThreads() {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	pid := os.Getpid()
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			unix.Tgkill(pid, tid, unix.SIGURG)
		}
	}
}
