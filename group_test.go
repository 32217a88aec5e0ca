//go:build unix

package prefork_test

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
	"github.com/prefork-go/prefork/preforktest"
)

// What a worker starts and leaves behind: with Config.StopGroup it ends with the worker.

// relatives is a program whose worker starts another program. Its arguments are StopTimeout, or "off" where groups are left alone, and
// what the other program is like.
func relatives() {
	if os.Args[1] == "grandchild" {
		grandchild(os.Args[2])
		return
	}
	timeout, err := time.ParseDuration(os.Args[1])
	pm := must(prefork.Config{MaxWorkers: 1, StopGroup: err == nil, StopTimeout: timeout, ErrRespawnInterval: -1})
	untilTerm(pm, func(w *prefork.Worker) error {
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
		say("worker %d", os.Getpid())
		<-ctx.Done()
		if os.Args[2] == "suspended" {
			return cmd.Wait() // else the kernel itself would wake it, when its group has lost its leader
		}
		return nil
	})
	say("manager ends with %d workers", pm.NumWorkers())
}

func grandchild(kind string) {
	signal.Ignore(hup) // which the kernel sends to an orphaned group with somebody suspended in it
	terms := make(chan os.Signal, 1)
	if signal.Notify(terms, term); kind == "deaf" {
		signal.Ignore(term)
	}
	parent := os.Getppid()
	say("grandchild %d", os.Getpid())
	if kind == "suspended" {
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	select {
	case <-terms:
	case <-time.After(2 * time.Minute):
		return
	}
	say("grandchild is told to stop")
	if kind == "slow" {
		for os.Getppid() == parent { // nothing tells of the end of a parent
			time.Sleep(time.Millisecond)
		}
	}
	say("grandchild ends in order")
}

// startRelatives starts the program and returns the pids of its worker and of what that has started.
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

// keepsRests tells whether what a worker leaves can be told to stop; else it is killed at once.
func keepsRests() bool {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var major, minor int
	fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 9
}

// One that does not hear the stop signal outlives its worker, and is killed in the end.
func TestGroupIsKilled(t *testing.T) {
	const timeout = 300 * time.Millisecond
	p, _, _ := startRelatives(t, timeout.String(), "deaf")
	began := time.Now()
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	if took := time.Since(began); keepsRests() && took < timeout {
		t.Errorf("it took %v, less than StopTimeout", took)
	}
	p.WaitGone()
	wantSuccess(t, p)
}

// One that takes its time, but no more than it has, is left in peace.
func TestGroupEndsInOrder(t *testing.T) {
	if !keepsRests() {
		t.Skip("this system cannot signal a group without its leader")
	}
	p, _, _ := startRelatives(t, "1m", "slow")
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	p.WaitGone()
	wantSuccess(t, p)
	lines := p.Lines()
	if end := slices.Index(lines, "grandchild ends in order"); end < 0 || end > slices.Index(lines, "manager ends with 0 workers") {
		t.Error("the grandchild did not end before the manager")
	}
}

// One that is suspended is told to stop, and goes on.
func TestSuspendedGroup(t *testing.T) {
	p, _, pid := startRelatives(t, "1m", "suspended")
	preforktest.WaitFor(t, "the grandchild is suspended", func() bool {
		all, err := p.Descendants()
		if err != nil {
			t.Skip(err)
		}
		return slices.ContainsFunc(all, func(d preforktest.Proc) bool { return d.PID == pid && d.State == 'T' })
	})
	p.Signal(term)
	p.Expect(`^grandchild ends in order$`)
	p.Expect(`^manager ends with 0 workers$`)
	wantSuccess(t, p)
}

// A worker that was killed by somebody cannot look after what it has started; the manager does, while it goes on.
func TestGroupOfAKilledWorker(t *testing.T) {
	p, worker, _ := startRelatives(t, "300ms", "deaf")
	syscall.Kill(worker, syscall.SIGKILL)
	if keepsRests() {
		p.ExpectN(3, `^worker |^grandchild |leftover processes killed`)
	} else {
		p.ExpectN(2, `^worker |^grandchild `)
	}
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	p.WaitGone()
	wantSuccess(t, p)
}

// Where nobody asks for it, what a worker leaves is left.
func TestGroupIsLeftAlone(t *testing.T) {
	p, _, pid := startRelatives(t, "off", "slow")
	p.Signal(term)
	p.Expect(`^manager ends with 0 workers$`)
	wantSuccess(t, p)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the grandchild: %v", err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	p.WaitGone()
	if out := strings.Join(p.Lines(), "\n"); strings.Contains(out, "is told") || strings.Contains(out, "leftover") {
		t.Errorf("somebody has looked after it:\n%s", out)
	}
}

// companion is a program whose worker is in the manager's own process group, and does not hear the stop signal.
func companion() {
	pm := must(prefork.Config{
		MaxWorkers: 1, StopGroup: true, StopTimeout: 100 * time.Millisecond,
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Attr = &syscall.SysProcAttr{Setpgid: true, Pgid: syscall.Getpgrp()}
		},
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) { say("%v", e.Reason) },
	})
	untilTerm(pm, func(w *prefork.Worker) error {
		w.Context()
		say("up in the group of the manager: %t", syscall.Getpgrp() != os.Getpid())
		time.Sleep(2 * time.Minute)
		return nil
	})
	say("manager ends")
}

// A group that a worker does not lead is that of others: here the manager's, and that of the tests.
func TestGroupOfTheManager(t *testing.T) {
	p := preforktest.New(t, "companion")
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Start()
	p.Expect(`^up in the group of the manager: true$`)
	p.Signal(term)
	p.Expect(`^stop timeout$`)
	p.Expect(`^manager ends$`)
	wantSuccess(t, p)
}
