package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime returns the CPU time that a process has used, zero if it is not known.
// The clock of a process takes 2 to 3 µs to read, /proc 20 (Linux 6.18,
// 2026-11-28).
func CPUTime(pid int) time.Duration {
	var t unix.Timespec
	if pid <= 0 || pid > maxPID {
		return 0
	}
	if err := unix.ClockGettime(int32(^pid)<<3|cpuClock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// cpuClock is CPUCLOCK_SCHED of Linux: the number of a process's CPU clock has it
// in its low bits, and the complement of the pid above them.
const cpuClock = 2

// maxPID is PID_MAX_LIMIT of Linux.
const maxPID = 1 << 22
