package proc

import (
	"runtime"
	"sync"
)

var reserveThreads sync.Once

// ReserveThreads makes the threads that a manager or a reaper may need, once for
// the process, and leaves them to the Go runtime, idle.
//
// The runtime ends the program when it needs a thread and the system has none
// left (RLIMIT_NPROC, a full pids cgroup): a manager would die of the limit that
// its workers have reached. An idle thread is never freed, so reserving them once
// is enough: one for each processor that runs Go code, and a few for goroutines
// that wait in a system call, also on a busy machine where each call takes long.
// A thread has some 30 KiB, hence the bound.
func ReserveThreads() {
	reserveThreads.Do(func() {
		n := min(runtime.GOMAXPROCS(0), 16) + 8
		var all, done sync.WaitGroup
		all.Add(n)
		for range n {
			done.Go(func() {
				runtime.LockOSThread() // a waiting goroutine keeps its thread, so there are n at once
				all.Done()
				all.Wait()
				runtime.UnlockOSThread()
			})
		}
		done.Wait()
	})
}
