package preforktest

import (
	"os"
	"sync"
	"testing"
)

// The functions of this file make something go wrong from outside, and give back what puts it right again. That is
// called at the end of the test at the latest, and does nothing when it is called again. They need Linux, and skip the test
// elsewhere, and where what they need is not permitted.

// Freeze stops a process with SIGSTOP, as a debugger does or a machine without a processor to spare, and returns when all its
// threads have stopped; thaw has it go on. It fails the test if the process is gone.
func Freeze(t testing.TB, pid int) (thaw func()) {
	t.Helper()
	if _, err := isStopped(pid); err != nil {
		t.Skipf("preforktest: freeze %d: %v", pid, err)
	}
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(sigStop)
	}
	if err != nil {
		t.Fatalf("preforktest: freeze %d: %v", pid, err)
	}
	thaw = sync.OnceFunc(func() {
		process.Signal(sigCont) // fails if it was killed meanwhile
		process.Release()
	})
	t.Cleanup(thaw)
	WaitFor(t, "the process has stopped", func() bool {
		stopped, err := isStopped(pid)
		return stopped || err != nil
	})
	return thaw
}

// StarveFiles takes the right to open one more descriptor from the program, by its limit (RLIMIT_NOFILE). Those that are open
// stay so, and processes that it has started are not concerned.
func (p *Program) StarveFiles() (restore func()) {
	p.t.Helper()
	return p.starve("descriptors", starveFiles)
}

// StarveProcesses takes the right to start one more process or thread from the program, as a full process table does: by the
// limit of its user (RLIMIT_NPROC) or, for root, whom that does not concern, by a cgroup. Processes that it has started are
// not concerned. A Go program that needs one more thread meanwhile dies of it: its threads are made when it first has
// much to do at a time.
func (p *Program) StarveProcesses() (restore func()) {
	p.t.Helper()
	return p.starve("processes", starveProcesses)
}

func (p *Program) starve(of string, how func(pid int) (func() error, error)) (restore func()) {
	p.t.Helper()
	undo, err := how(p.PID())
	if err != nil {
		p.t.Skipf("preforktest: %s cannot be starved of %s: %v", p, of, err)
	}
	restore = sync.OnceFunc(func() {
		if err := undo(); err != nil && !p.hasEnded() {
			p.t.Errorf("preforktest: %s: %v", p, err)
		}
	})
	p.t.Cleanup(restore)
	return restore
}
