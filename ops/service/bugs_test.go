//go:build unix

package service_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// One test for each bug of Proc::tored, under its number in docs/PORTING.md. B11 is one of its pool, and is tested in
// examples/tasks.

const nobody = "65534"

// startNow starts a program that does not wait for its standard input.
func startNow(t *testing.T, s *service.Service, program string, args ...string) *preforktest.Program {
	t.Helper()
	return start(t, s, program, args...) // without Stdin it is the null device, at its end
}

// B1: a process of another user was taken for dead, and a second copy started.
func TestB1OtherUser(t *testing.T) {
	s := newService(t)
	open(t, s.Dir())
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startNow(t, s, "starter", nobody)
	got := p.Expect(`^(not permitted|held by ` + strconv.Itoa(os.Getpid()) + `: )`)
	if strings.HasPrefix(got[0], "not") {
		t.Skip("this process may not start one of another user: run as root")
	}
	p.Wait()
}

// B1, the other way round: root finds that nobody runs it. What nobody has left behind is replaced by root, and what root
// has left behind cannot be taken by nobody, who is told so.
func TestB1FilesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("run as root")
	}
	s := newService(t)
	open(t, s.Dir())
	p := startNow(t, s, "starter", nobody)
	p.Expect(`^runs `)
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
		t.Errorf("the pid file is still another user's: %v", err)
	}
	l.Close()

	p = startNow(t, s, "starter")
	p.Expect(`^runs `)
	p.Kill()
	p.Wait()
	p = startNow(t, s, "starter", nobody)
	p.Expect(`^cannot: .*permission denied: the file is another user's; if it is left from a former run, remove it$`)
	p.Wait()
}

// B2: a pid that was given to another process was taken for a service that runs.
func TestB2PIDOfAStranger(t *testing.T) {
	s := newService(t)
	os.WriteFile(s.PIDFile, []byte(strconv.Itoa(os.Getppid())+"\n"), 0o644)
	wantRunning(t, s, 0)
	n := 0
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { n++; return false, nil }); err != nil || n != 1 {
		t.Errorf("Run: %v after %d", err, n)
	}
	if out, err := s.Zap(t.Context(), service.Escalation{Kill: time.Nanosecond}); out != service.NotRunning || err != nil {
		t.Errorf("Zap: %v, %v", out, err)
	}
}

// B3: a lock file that a crash left behind kept the service from ever starting again.
func TestB3StaleLock(t *testing.T) {
	s := newService(t)
	os.WriteFile(s.PIDFile+".lock", nil, 0o644) // of the original
	for range 3 {
		p := startNow(t, s, "starter")
		p.Expect(`^runs `)
		p.Kill()
		p.Wait()
		if !exists(t, s.PIDFile) {
			t.Error("the pid file is gone: this test tests nothing")
		}
		wantRunning(t, s, 0)
	}
	if err := s.Run(t.Context(), func(context.Context) (bool, error) { return false, nil }); err != nil {
		t.Error(err)
	}
	if exists(t, s.PIDFile) {
		t.Error("the pid file is left")
	}
}

// B4: nothing was held while the service ran. Now the lock is, and if the file is removed, it is made anew.
func TestB4HeldForLife(t *testing.T) {
	s := newService(t)
	p := startNow(t, s, "starter")
	p.Expect(`^runs `)
	os.WriteFile(s.PIDFile, []byte("1\n"), 0o644) // it is the lock that counts, and what holds the file
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v, with another pid in the file", pid, running, err)
	}
	os.Remove(s.PIDFile)
	p.Expect(`the pid file was removed; it is there again`)
	wantRunning(t, s, p.PID())
	if _, err := s.Begin(t.Context()); !errors.Is(err, service.ErrRunning) {
		t.Errorf("Begin: %v", err)
	}
	s.Stop()
	p.Expect(`^ended$`)
	p.Wait()
	if exists(t, s.PIDFile) {
		t.Error("the pid file is left")
	}
}

// B5: a stop flag that was set between the check and the lock was fatal. Here it is set while Begin waits for the name.
func TestB5StoppedMeanwhile(t *testing.T) {
	s := newService(t)
	p := startNow(t, s, "loop")
	p.Expect(`^runs `)
	s.LockTimeout = -1
	errs := make(chan error)
	go func() {
		_, err := s.Begin(t.Context())
		errs <- err
	}()
	time.Sleep(10 * time.Millisecond) // either way it must be the same
	s.Stop()
	if err := <-errs; !errors.Is(err, service.ErrStopped) {
		t.Errorf("Begin: %v", err)
	}
	p.Expect(`^returned <nil> after 1$`)
	p.Wait()
	wantRunning(t, s, 0)
}

// B6: the handlers of signals were not restored, and stayed after a failure.
func TestB6SignalsGivenBack(t *testing.T) {
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
			t.Error("a signal that was ignored is not any more")
		}
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		<-mine
	}
}

// B7: zap did not tell "nothing ran" from "it did not stop".
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

	p := startNow(t, s, "deaf")
	p.Expect(`^runs `)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	zap(ctx, service.StillRunning)
	p.Kill()
	p.Wait()
	s.Start()

	p = startNow(t, s, "starter")
	p.Expect(`^runs `)
	zap(t.Context(), service.Gone)
	p.Expect(`^ended$`)
	p.Wait()
}

func init() { programs["deaf"] = deaf }

// deaf runs the service and heeds neither its flag nor TERM.
func deaf() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	l, err := in().Begin(context.Background())
	say("runs %d %v", os.Getpid(), err)
	<-l.Context().Done()
	time.Sleep(time.Hour)
}

// B8: zap never sent a signal.
func TestB8Escalation(t *testing.T) {
	s := newService(t)
	p := startNow(t, s, "untrapped")
	p.Expect(`^runs `)
	if got, err := s.Zap(t.Context(), service.Escalation{Term: 20 * time.Millisecond}); got != service.Gone || err != nil {
		t.Errorf("Zap by TERM: %v, %v", got, err)
	}
	if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by %v", ws)
	}
	s.Start()
	p = startNow(t, s, "deaf")
	p.Expect(`^runs `)
	if got, err := s.Zap(t.Context(), service.Escalation{Term: 20 * time.Millisecond, Kill: 60 * time.Millisecond}); got != service.Gone || err != nil {
		t.Errorf("Zap by KILL: %v, %v", got, err)
	}
	if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("it ended by %v", ws)
	}
}

func init() { programs["untrapped"] = untrapped }

// untrapped runs the service and does not look at its flag.
func untrapped() {
	l, err := in().Begin(context.Background())
	say("runs %d %v", os.Getpid(), err)
	<-l.Context().Done()
	time.Sleep(time.Hour)
}

// B9: zap went beyond its time by a poll, took a zombie for alive, and a stranger for the service.
func TestB9DeadlineAndZombie(t *testing.T) {
	s := newService(t)
	p := preforktest.New(t, "parent", s.Dir())
	p.Start()
	p.Expect(`^runs `)
	// A poll of 200 ms would end 100 ms late each time; a machine that is busy does not.
	const timeout = 300 * time.Millisecond
	least := time.Hour
	for try := 0; try < 20 && least > 50*time.Millisecond; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		from := time.Now()
		if got, err := s.Zap(ctx, service.Escalation{}); got != service.StillRunning || err != nil {
			t.Errorf("Zap: %v, %v", got, err)
		}
		least = min(least, time.Since(from)-timeout)
		cancel()
	}
	t.Logf("a timeout of %v took %v longer", timeout, least)
	if least < 0 || least > 90*time.Millisecond {
		t.Errorf("a timeout of %v took %v longer at least", timeout, least)
	}
	// The process is killed and stays a zombie, since its parent does not wait for it.
	if got, err := s.Zap(t.Context(), service.Escalation{Kill: time.Millisecond}); got != service.Gone || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	p.Kill()
	p.Wait()
}

func init() { programs["parent"] = parent }

// parent starts a program that runs the service, and never waits for it.
func parent() {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "PREFORKTEST_PROGRAM=deaf") // exec has the last of two count
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		say("%v", err)
	}
	time.Sleep(time.Hour)
}

// B12: a start did not wait for the name.
func TestB12Waiting(t *testing.T) {
	s := newService(t)
	p := startNow(t, s, "loop")
	p.Expect(`^runs `)
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
	began := make(chan error)
	for range 2 { // one after another
		go func() {
			began <- s.Run(t.Context(), func(context.Context) (bool, error) { return false, nil })
		}()
	}
	time.Sleep(10 * time.Millisecond)
	p.Signal(syscall.SIGTERM)
	p.Expect(`Caught SIGTERM`)
	p.Expect(`^told: service: caught SIGTERM$`)
	p.Expect(`^returned <nil> after 1$`)
	p.Wait()
	for range 2 {
		if err := <-began; err != nil {
			t.Errorf("Run that waits: %v", err)
		}
	}
}

// A pid file that another user has made names whom that user likes; only a process of that user is signalled for it.
func TestB8FileOfAStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("run as root")
	}
	s := newService(t)
	f, err := os.Create(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	victim := preforktest.New(t, "stranger")
	victim.Cmd.Stdin = f // as if it had been sent there
	victim.Start()
	id, _ := strconv.Atoi(nobody)
	fmt.Fprintln(f, victim.PID())
	if err := errors.Join(f.Chown(id, id), syscall.Flock(int(f.Fd()), syscall.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, s, victim.PID())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	outcome, err := s.Zap(ctx, service.Escalation{Term: time.Millisecond})
	if outcome != service.StillRunning || err == nil {
		t.Errorf("%v, %v", outcome, err)
	}
	t.Log(err)
}
