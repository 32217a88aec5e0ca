package proc

import (
	"runtime"
	"sync"
)

// ReserveThreads makes the threads that a manager or a reaper may need and
// leaves them idle in the Go runtime. Only the first call in a process has an
// effect. A manager should call it before it starts workers.
//
// If the runtime needs a thread and the system has none left (RLIMIT_NPROC, a
// full pids cgroup), it ends the program: a manager would die of a limit that
// its workers have reached. An idle thread stays, so a reserve made once is
// enough. It holds one thread for each processor that runs Go code, and 8 for
// system calls, which can all be slow on a busy machine. A thread takes about
// 30 KiB, so the reserve is limited to 24.
func ReserveThreads() { reserveThreads() }

var reserveThreads = sync.OnceFunc(func() {
	n := min(runtime.GOMAXPROCS(0), 16) + 8
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread() // a waiting goroutine keeps its thread, so n exist at once
			all.Done()
			all.Wait()
			runtime.UnlockOSThread()
		})
	}
	done.Wait()
})
