//go:build unix

package service_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// These tests are numbered like the bugs of Proc::tored in docs/PORTING.md. B11
// concerns its pool and is tested in examples/tasks.

// otherUID is the ID of an unprivileged user.
const otherUID = "65534"

// B1: the original takes a process of another user for dead and starts a
// second.
func TestB1OtherUser(t *testing.T) {
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := start(t, s, "starter", otherUID)
	got := p.Expect(`^(not permitted|held by ` + strconv.Itoa(os.Getpid()) + `: )`)
	if strings.HasPrefix(got[0], "not") {
		preforktest.Skipf(t, "needs root, to start a process of another user")
	}
	p.Wait()
}

// B1 the other way round: root detects the service of another user and replaces
// its leftover pid file. The other user cannot replace the leftover pid file of
// root, and gets an error that explains it.
func TestB1FilesOfOthers(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	makeWorldWritable(t, s.Dir())
	p := start(t, s, "starter", otherUID)
	p.Expect(`^running `)
	if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) || !strings.Contains(err.Error(), strconv.Itoa(p.PID())) {
		t.Errorf("Begin: %v", err)
	}
	p.Kill()
	p.Wait()
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(s.PIDFile); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the pid file still belongs to another user: %v", err)
	}
	l.Close()

	p = start(t, s, "starter")
	p.Expect(`^running `)
	p.Kill()
	p.Wait()
	p = start(t, s, "starter", otherUID)
	p.Expect(`^error: .*permission denied: file belongs to user 0, mode 0644: remove it if it is left over from an earlier run$`)
	p.Wait()
}

// B2: the original takes a process with a recycled pid for the service.
func TestB2PIDOfOtherProcess(t *testing.T) {
	s := newService(t)
	os.WriteFile(s.PIDFile, []byte(strconv.Itoa(os.Getppid())+"\n"), 0o644)
	checkRunning(t, s, 0)
	n := 0
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { n++; return false, nil }); err != nil || n != 1 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if out, err := s.Zap(t.Context(), service.Escalation{Kill: time.Nanosecond}); out != service.NotRunning || err != nil {
		t.Errorf("Zap: %v, %v", out, err)
	}
}

// B3: in the original, a lock file that is left over from a crash prevents
// every start.
func TestB3StaleLock(t *testing.T) {
	s := newService(t)
	os.WriteFile(s.PIDFile+".lock", nil, 0o644) // the original's
	for range 3 {
		p := start(t, s, "starter")
		p.Expect(`^running `)
		p.Kill()
		p.Wait()
		if !exists(t, s.PIDFile) {
			t.Error("no pid file is left over after a crash: the test is void")
		}
		checkRunning(t, s, 0)
	}
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { return false, nil }); err != nil {
		t.Error(err)
	}
	if exists(t, s.PIDFile) {
		t.Error("the pid file still exists")
	}
}

// B4: the original holds no lock while the service runs. Here the lock is held,
// and a pid file that was overwritten or removed is created again.
func TestB4HeldForLife(t *testing.T) {
	s := newService(t)
	p := start(t, s, "starter")
	p.Expect(`^running `)
	// The lock decides, not the content. The pid is of the same user: other
	// users' processes cannot be examined.
	thaw := preforktest.Freeze(t, p.PID()) // or it writes its pid again at once
	os.WriteFile(s.PIDFile, []byte(strconv.Itoa(os.Getppid())+"\n"), 0o644)
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v; want 0, true, <nil>", pid, running, err)
	}
	thaw()
	p.Expect(`pid file overwritten, written again`)
	checkRunning(t, s, p.PID())
	os.Remove(s.PIDFile)
	p.Expect(`pid file removed, created again`)
	checkRunning(t, s, p.PID())
	if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) {
		t.Errorf("Begin: %v", err)
	}
	s.Stop()
	p.Expect(`^ended$`)
	p.Wait()
	if exists(t, s.PIDFile) {
		t.Error("the pid file still exists")
	}
}

// The other side of B4: a loop whose pid file was removed ends if another
// process has acquired the lock since then.
func TestB4LockLost(t *testing.T) {
	s := newService(t)
	p := start(t, s, "starter")
	p.Expect(`^running `)
	l := stealLock(t, s, p)
	p.Expect(`lock lost, stopping`)
	p.Expect(`^close: service test: pid file was removed and another process has acquired the lock$`)
	p.Wait()
	checkRunning(t, s, os.Getpid())
	l.Close()
}

// stealLock starts the service in the test while p runs it. It removes the pid
// file while p is frozen, so that p cannot create it again in time. It uses
// another path of the directory, because on Linux the path is locked too.
func stealLock(t *testing.T, s *service.Service, p *preforktest.Program) *service.Loop {
	t.Helper()
	thaw := preforktest.Freeze(t, p.PID())
	defer thaw()
	os.Remove(s.PIDFile)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.Dir(), link); err != nil {
		t.Fatal(err)
	}
	s, err := service.New(s.Name(), link)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// B5: in the original, a stopped flag that is set between check and lock is
// fatal. Here it is set while Begin waits for the lock.
func TestB5StoppedWhileWaiting(t *testing.T) {
	s := newService(t)
	p := start(t, s, "loop")
	p.Expect(`^running `)
	s.LockTimeout = -1
	log := withLog(s)
	errs := make(chan error)
	go func() {
		_, err := s.Begin(t.Context())
		errs <- err
	}()
	preforktest.WaitFor(t, "Begin to wait", func() bool { return log.count("waiting for lock holder") == 1 })
	s.Stop()
	if err := <-errs; !errors.Is(err, service.ErrStopped) {
		t.Errorf("Begin: %v", err)
	}
	p.Expect(`^returned <nil> after 1$`)
	p.Wait()
	checkRunning(t, s, 0)
}

// B6: the original does not restore signal handlers, not even after a failure.
func TestB6SignalsRestored(t *testing.T) {
	mine := make(chan os.Signal, 1)
	signal.Notify(mine, syscall.SIGUSR1)
	defer signal.Stop(mine)
	signal.Ignore(syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGUSR2)
	s := newService(t)
	s.TrapSignals = []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2}
	for _, work := range []func(context.Context) (bool, error){
		func(context.Context) (bool, error) { return false, nil },
		func(context.Context) (bool, error) { return false, errors.New("failed") },
		func(context.Context) (bool, error) { panic("a fault") },
		func(ctx context.Context) (bool, error) {
			syscall.Kill(os.Getpid(), syscall.SIGUSR2)
			<-ctx.Done()
			return true, nil
		},
	} {
		func() {
			defer func() { recover() }()
			s.Run(t.Context(), work)
		}()
		if !signal.Ignored(syscall.SIGUSR2) {
			t.Error("the signal is no longer ignored")
		}
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		<-mine
	}
}

// B7: in the original, zap has one result for "not running" and "did not stop".
func TestB7Outcomes(t *testing.T) {
	s := newService(t)
	zap := func(ctx context.Context, want service.Outcome) {
		t.Helper()
		if got, err := s.Zap(ctx, service.Escalation{}); got != want || err != nil {
			t.Errorf("Zap: %v, %v; want %v", got, err, want)
		}
		if !s.Stopped() {
			t.Errorf("%v: the stopped flag is not set", want)
		}
	}
	zap(t.Context(), service.NotRunning)
	s.Start()
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	zap(t.Context(), service.Self)
	l.Close()
	s.Start()

	p := start(t, s, "ignoring")
	p.Expect(`^running `)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	zap(ctx, service.StillRunning)
	p.Kill()
	p.Wait()
	s.Start()

	p = start(t, s, "starter")
	p.Expect(`^running `)
	zap(t.Context(), service.Exited)
	p.Expect(`^ended$`)
	p.Wait()
}

func init() { preforktest.Register("ignoring", ignoring) }

// ignoring runs the service and ignores the stopped flag and SIGTERM.
func ignoring() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	l, err := programService().Begin(context.Background())
	report("running %d %v", os.Getpid(), err)
	<-l.Context().Done()
	time.Sleep(time.Hour)
}

// B8: in the original, zap sends no signals.
func TestB8Escalation(t *testing.T) {
	s := newService(t)
	p := start(t, s, "untrapped")
	p.Expect(`^running `)
	if got, err := s.Zap(t.Context(), service.Escalation{Term: 20 * time.Millisecond}); got != service.Exited || err != nil {
		t.Errorf("Zap by TERM: %v, %v", got, err)
	}
	if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGTERM {
		t.Errorf("the service ended by %v", ws)
	}
	s.Start()
	p = start(t, s, "ignoring")
	p.Expect(`^running `)
	if got, err := s.Zap(t.Context(), service.Escalation{Term: 20 * time.Millisecond, Kill: 60 * time.Millisecond}); got != service.Exited || err != nil {
		t.Errorf("Zap by KILL: %v, %v", got, err)
	}
	if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("the service ended by %v", ws)
	}
}

func init() { preforktest.Register("untrapped", untrapped) }

// untrapped runs the service and ignores the stopped flag, but not SIGTERM.
func untrapped() {
	l, err := programService().Begin(context.Background())
	report("running %d %v", os.Getpid(), err)
	<-l.Context().Done()
	time.Sleep(time.Hour)
}

// B9: in the original, zap exceeds its timeout by a polling interval, and takes
// a zombie or a process with a recycled pid for the service.
func TestB9DeadlineAndZombie(t *testing.T) {
	s := newService(t)
	p := preforktest.New(t, "parent", s.Dir())
	p.Start()
	p.Expect(`^running `)
	// Polling every 200 ms exceeds the timeout by 100 ms each time, a busy
	// machine only sometimes.
	const timeout = 300 * time.Millisecond
	excess := time.Hour // the least of all tries
	for try := 0; try < 20 && excess > 50*time.Millisecond; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		from := time.Now()
		if got, err := s.Zap(ctx, service.Escalation{}); got != service.StillRunning || err != nil {
			t.Errorf("Zap: %v, %v", got, err)
		}
		excess = min(excess, time.Since(from)-timeout)
		cancel()
	}
	t.Logf("timeout of %v exceeded by %v", timeout, excess)
	if excess < 0 || excess > 90*time.Millisecond {
		t.Errorf("timeout of %v exceeded by %v", timeout, excess)
	}
	// The killed process remains a zombie, because its parent does not wait for
	// it.
	if got, err := s.Zap(t.Context(), service.Escalation{Kill: time.Millisecond}); got != service.Exited || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	p.Kill()
	p.Wait()
}

func init() { preforktest.Register("parent", parent) }

// parent starts a program that runs the service, and does not wait for it.
func parent() {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "PREFORKTEST_PROGRAM=ignoring") // os/exec uses the last value
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		report("%v", err)
	}
	time.Sleep(time.Hour)
}

// B12: in the original, a start does not wait for the lock.
func TestB12Waiting(t *testing.T) {
	s := newService(t)
	log := withLog(s)
	p := start(t, s, "loop")
	p.Expect(`^running `)
	s.LockTimeout = 20 * time.Millisecond
	if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) || !strings.Contains(err.Error(), strconv.Itoa(p.PID())) {
		t.Errorf("Begin that waits for 20 ms: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s.LockTimeout = -1
	if _, err := s.Begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Begin whose context ends: %v", err)
	}
	waiting := log.count("waiting for lock holder")
	began := make(chan error)
	for range 2 { // they run one after the other
		go func() {
			began <- s.Run(t.Context(), func(context.Context) (bool, error) { return false, nil })
		}()
	}
	preforktest.WaitFor(t, "both to wait", func() bool { return log.count("waiting for lock holder") == waiting+2 })
	p.Signal(syscall.SIGTERM)
	p.Expect(`signal caught.* signal=SIGTERM`)
	p.Expect(`^cause: service: caught SIGTERM$`)
	p.Expect(`^returned <nil> after 1$`)
	p.Wait()
	for range 2 {
		if err := <-began; err != nil {
			t.Errorf("Run that waits: %v", err)
		}
	}
}

// A pid file of another user may contain any pid. Zap signals the process only
// if it belongs to that user.
func TestB8FileOfOtherUser(t *testing.T) {
	needOtherUser(t)
	s := newService(t)
	f, err := os.Create(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	victim := preforktest.New(t, "sleeper")
	victim.Cmd.Stdin = f // as if the owner had passed the open file
	victim.Start()
	id, _ := strconv.Atoi(otherUID)
	fmt.Fprintln(f, victim.PID())
	if err := errors.Join(f.Chown(id, id), syscall.Flock(int(f.Fd()), syscall.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	checkRunning(t, s, victim.PID())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	outcome, err := s.Zap(ctx, service.Escalation{Term: time.Millisecond})
	if outcome != service.StillRunning || err == nil {
		t.Errorf("Zap: %v, %v; want still running and an error", outcome, err)
	}
	t.Log(err)
}
