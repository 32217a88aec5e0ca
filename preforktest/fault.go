package preforktest

import (
	"os"
	"sync"
	"testing"
)

// Freeze stops a process with SIGSTOP, as a debugger or an overloaded machine
// does, and returns after all its threads have stopped. The function thaw
// continues the process; it is also called when the test ends, and further
// calls are no-ops.
//
// Freeze fails the test if the process does not exist. It needs Linux and skips
// the test on other systems.
func Freeze(t testing.TB, pid int) (thaw func()) {
	t.Helper()
	if _, err := isStopped(pid); err != nil {
		Skipf(t, "preforktest: freeze %d: %v", pid, err)
	}
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(sigStop)
	}
	if err != nil {
		t.Fatalf("preforktest: freeze %d: %v", pid, err)
	}
	thaw = sync.OnceFunc(func() {
		process.Signal(sigCont) // fails if the process was killed
		process.Release()
	})
	t.Cleanup(thaw)
	WaitFor(t, "the process has stopped", func() bool {
		stopped, err := isStopped(pid)
		return stopped || err != nil
	})
	return thaw
}

// StarveFiles keeps the program from opening descriptors, by its limit
// RLIMIT_NOFILE. Open descriptors stay open, and processes that the program has
// started are not affected. The function restore restores the limit; it is also
// called when the test ends, and further calls are no-ops.
//
// StarveFiles needs Linux. It skips the test on other systems and if the change
// is not permitted.
func (p *Program) StarveFiles() (restore func()) {
	p.t.Helper()
	return p.starve("descriptors", starveFiles)
}

// StarveProcesses keeps the program from starting processes and threads, as a
// full process table does. It uses the limit of the user (RLIMIT_NPROC), or a
// cgroup if the program runs as root, to which that limit does not apply. A Go
// program dies if it needs another thread: its threads are made when it is
// first busy. Otherwise StarveProcesses is like StarveFiles.
func (p *Program) StarveProcesses() (restore func()) {
	p.t.Helper()
	return p.starve("processes", starveProcesses)
}

func (p *Program) starve(resource string, limit func(pid int) (func() error, error)) (
	restore func()) {
	p.t.Helper()
	undo, err := limit(p.PID())
	if err != nil {
		Skipf(p.t, "preforktest: %s: %s cannot be limited: %v", p, resource, err)
	}
	restore = sync.OnceFunc(func() {
		if err := undo(); err != nil && !p.exited() {
			p.t.Errorf("preforktest: %s: %v", p, err)
		}
	})
	p.t.Cleanup(restore)
	return restore
}
