//go:build unix

package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("relatives", relatives)
	preforktest.Register("companion", companion)
}

// With Config.StopGroup the processes that a worker leaves behind end with it.

// relatives is a program whose worker starts another program. Its arguments are
// StopTimeout, or "off" without StopGroup, and the behaviour of the other
// program.
func relatives() {
	if os.Args[1] == "grandchild" {
		grandchild(os.Args[2])
		return
	}
	timeout, err := time.ParseDuration(os.Args[1])
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, StopGroup: err == nil, StopTimeout: timeout, ErrRespawnInterval: -1, OrphanTimeout: 100 * time.Millisecond})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		path, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(path, "grandchild", os.Args[2])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		testprog.Print("worker %d", os.Getpid())
		<-ctx.Done()
		if os.Args[2] == "suspended" {
			// Otherwise the kernel would wake it when its group has lost its leader.
			return cmd.Wait()
		}
		return nil
	})
	testprog.Print("manager ends with %d workers", pm.NumWorkers())
}

// Without a manager, a worker ends its group itself: it sends the stop signal,
// and SIGKILL after OrphanTimeout, also if its own work has ended by then.
func TestOrphanEndsItsGroup(t *testing.T) {
	for _, kind := range []string{"polite", "stubborn", "suspended"} {
		t.Run(kind, func(t *testing.T) {
			p := preforktest.Start(t, "relatives", "2m", kind)
			worker, _ := strconv.Atoi(p.Expect(`^worker (\d+)$`)[1])
			pid, _ := strconv.Atoi(p.Expect(`^grandchild (\d+)$`)[1])
			if kind == "suspended" {
				awaitSuspended(t, p, pid)
				// The kernel sends it to the group too, after the manager's death.
				syscall.Kill(worker, syscall.SIGHUP)
			}
			p.Kill()
			if kind != "stubborn" {
				p.Expect(`^grandchild got the stop signal$`)
			}
			p.Wait()
			p.WaitGone()
		})
	}
	// Without StopGroup the worker leaves them alone.
	p := preforktest.Start(t, "relatives", "off", "stubborn")
	worker, _ := strconv.Atoi(p.Expect(`^worker (\d+)$`)[1])
	other, _ := strconv.Atoi(p.Expect(`^grandchild (\d+)$`)[1])
	p.Kill()
	preforktest.WaitFor(t, "the worker has ended", func() bool {
		if pgid, err := syscall.Getpgid(other); err != nil || pgid != worker {
			t.Fatalf("the other program is gone, or in another group: %d, %v", pgid, err)
		}
		// A process 1 that reaps no orphans leaves a zombie.
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		return syscall.Kill(worker, 0) != nil || strings.Contains(string(stat), ") Z ")
	})
	if err := syscall.Kill(other, syscall.SIGKILL); err != nil {
		t.Errorf("the other program is gone: %v", err)
	}
	p.WaitGone()
}

func grandchild(kind string) {
	signal.Ignore(hup) // the kernel sends it to an orphaned group that has a stopped member
	terms := make(chan os.Signal, 1)
	if signal.Notify(terms, term); kind == "stubborn" {
		signal.Ignore(term)
	}
	parent := os.Getppid()
	testprog.Print("grandchild %d", os.Getpid())
	if kind == "suspended" {
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	select {
	case <-terms:
	case <-time.After(2 * time.Minute):
		return
	}
	testprog.Print("grandchild got the stop signal")
	if kind == "slow" {
		for os.Getppid() == parent { // no event reports the end of a parent
			time.Sleep(time.Millisecond)
		}
	}
	testprog.Print("grandchild ends in order")
}

// startRelatives starts the program. It returns the pids of its worker and of
// the process that the worker started.
func startRelatives(t *testing.T, args ...string) (p *preforktest.Program, worker, grandchild int) {
	t.Helper()
	p = preforktest.Start(t, "relatives", args...)
	for _, line := range p.ExpectN(2, `^(worker|grandchild) (\d+)$`) {
		if pid, _ := strconv.Atoi(line[2]); line[1] == "worker" {
			worker = pid
		} else {
			grandchild = pid
		}
	}
	return p, worker, grandchild
}

// canStopLeftovers reports whether the manager can send the stop signal to leftover
// processes. Otherwise it kills them at once.
func canStopLeftovers() bool {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var major, minor int
	fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 9
}

// A leftover process that ignores the stop signal is killed after StopTimeout.
func TestGroupIsKilled(t *testing.T) {
	const timeout = 300 * time.Millisecond
	p, _, _ := startRelatives(t, timeout.String(), "stubborn")
	began := time.Now()
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	if took := time.Since(began); canStopLeftovers() && took < timeout {
		t.Errorf("it took %v, less than StopTimeout", took)
	}
	p.WaitGone()
	testprog.ExpectSuccess(t, p)
}

// A leftover process that exits within StopTimeout is not killed.
func TestGroupEndsInOrder(t *testing.T) {
	if !canStopLeftovers() {
		preforktest.Skipf(t, "this system cannot signal a group without its leader")
	}
	p, _, _ := startRelatives(t, "1m", "slow")
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	p.WaitGone()
	testprog.ExpectSuccess(t, p)
	lines := p.Lines()
	if end := slices.Index(lines, "grandchild ends in order"); end < 0 || end > slices.Index(lines, "manager ends with 0 workers") {
		t.Error("the grandchild did not end before the manager")
	}
}

func awaitSuspended(t *testing.T, p *preforktest.Program, pid int) {
	t.Helper()
	preforktest.WaitFor(t, "the grandchild is suspended", func() bool {
		all, err := p.Descendants()
		if err != nil {
			preforktest.Skipf(t, "%v", err)
		}
		return slices.ContainsFunc(all, func(d preforktest.Proc) bool { return d.PID == pid && d.State == 'T' })
	})
}

// A suspended leftover process gets the stop signal and SIGCONT.
func TestSuspendedGroup(t *testing.T) {
	p, _, pid := startRelatives(t, "1m", "suspended")
	awaitSuspended(t, p, pid)
	p.Signal(term)
	p.Expect(`^grandchild ends in order$`)
	p.Expect(`^manager ends with 0 workers$`)
	testprog.ExpectSuccess(t, p)
}

// A worker is killed by another process. The running manager ends the processes
// that it left behind.
func TestGroupOfKilledWorker(t *testing.T) {
	p, worker, _ := startRelatives(t, "300ms", "stubborn")
	syscall.Kill(worker, syscall.SIGKILL)
	if canStopLeftovers() {
		p.ExpectN(3, `^worker |^grandchild |leftover processes killed`)
	} else {
		p.ExpectN(2, `^worker |^grandchild `)
	}
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	p.WaitGone()
	testprog.ExpectSuccess(t, p)
}

// Without StopGroup leftover processes keep running.
func TestGroupIsLeftAlone(t *testing.T) {
	p, _, pid := startRelatives(t, "off", "slow")
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	testprog.ExpectSuccess(t, p)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the grandchild: %v", err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	p.WaitGone()
	if out := strings.Join(p.Lines(), "\n"); strings.Contains(out, "got the stop") || strings.Contains(out, "leftover") {
		t.Errorf("the manager has signalled it:\n%s", out)
	}
}

// companion is a program whose worker is in the process group of the manager
// and ignores the stop signal.
func companion() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, StopGroup: true, StopTimeout: 100 * time.Millisecond,
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Attr = &syscall.SysProcAttr{Setpgid: true, Pgid: syscall.Getpgrp()}
		},
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) { testprog.Print("%v", e.Reason) },
	})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		w.Context()
		testprog.Print("up in the group of the manager: %t", syscall.Getpgrp() != os.Getpid())
		time.Sleep(2 * time.Minute)
		return nil
	})
	testprog.Print("manager ends")
}

// The manager does not signal a group that the worker does not lead: here it is
// the group of the manager and of the tests.
func TestGroupOfTheManager(t *testing.T) {
	p := preforktest.New(t, "companion")
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Start()
	p.Expect(`^up in the group of the manager: true$`)
	p.Signal(term)
	p.Expect(`^stop timeout$`)
	p.Expect(`^manager ends$`)
	testprog.ExpectSuccess(t, p)
}
