//go:build !linux

package proc

import "time"

// CPUTime returns zero: the CPU time of another process is not known.
func CPUTime(pid int) time.Duration { return 0 }
