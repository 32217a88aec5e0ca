//go:build unix

package proc

import (
	"syscall"
	"time"
)

// UsedCPU returns the CPU time of a process that was reaped; zero without a usage.
func UsedCPU(usage *syscall.Rusage) time.Duration {
	if usage == nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
