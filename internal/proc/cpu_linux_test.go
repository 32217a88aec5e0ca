package proc

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// The CPU time of a process grows with its work, and that of a process that does
// not exist is zero.
func TestCPUTime(t *testing.T) {
	before := CPUTime(os.Getpid())
	for CPUTime(os.Getpid()) < before+2*time.Millisecond {
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	// The kernel counts both by the same clock, and this one goes on.
	used, now := UsedCPU(&usage), CPUTime(os.Getpid())
	if used > now+time.Millisecond || now > used+10*time.Second {
		t.Errorf("%v by its usage, %v by its clock", used, now)
	}
	for _, pid := range []int{0, -1, maxPID, 1 << 29, 1 << 30, 1<<30 + os.Getpid()} {
		if d := CPUTime(pid); d != 0 {
			t.Errorf("process %d, which does not exist, has used %v", pid, d)
		}
	}
	if d := UsedCPU(nil); d != 0 {
		t.Errorf("without a usage: %v", d)
	}
}

func BenchmarkCPUTime(b *testing.B) {
	pid := os.Getppid()
	for b.Loop() {
		CPUTime(pid)
	}
}
