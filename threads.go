package prefork

import (
	"runtime"
	"sync"
)

// spareThreads makes the threads that a manager or a reaper may need, once for the process, and leaves them to the Go
// runtime, idle. When the runtime needs a thread and the system has none left (RLIMIT_NPROC, a full pids cgroup), it ends the program:
// a manager would die of the limit that its workers have reached. An idle thread stays, so what is enough once is enough
// from then on: one for each processor that runs Go code, and a few for those that wait in a system call meanwhile, also
// where a busy machine makes each call a long one. Each has some 30 KiB; hence the bound.
func (p *process) spareThreads() {
	p.threads.Do(func() {
		n := min(runtime.GOMAXPROCS(0), 16) + 8
		var all, done sync.WaitGroup
		all.Add(n)
		for range n {
			done.Go(func() {
				runtime.LockOSThread() // a goroutine that waits keeps its thread: so there are n at once
				all.Done()
				all.Wait()
				runtime.UnlockOSThread()
			})
		}
		done.Wait()
	})
}
