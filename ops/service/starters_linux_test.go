package service_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// startBlocked starts n programs, which continue when release is called.
func startBlocked(t *testing.T, s *service.Service, n int, args ...string) (programs []*preforktest.Program, release func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	for range n {
		p := preforktest.New(t, "starter", append([]string{s.Dir()}, args...)...)
		p.Cmd.Stdin = r
		programs = append(programs, p.Start())
	}
	for _, p := range programs {
		p.Expect(`^started$`)
	}
	return programs, func() { w.Close() }
}

// expectOneRunning waits until one of the programs runs the service, and all
// others have reported its pid.
func expectOneRunning(t *testing.T, programs []*preforktest.Program) (winner *preforktest.Program) {
	t.Helper()
	holders := make(map[string]int) // by the reports of the others
	for _, p := range programs {
		got := p.Expect(`^(running|held by|not permitted|error)(?: (\d+))?.*$`)
		switch got[1] {
		case "running":
			if winner != nil {
				t.Errorf("%d and %d run the service", winner.PID(), p.PID())
			}
			winner = p
		case "held by":
			holders[got[2]]++
			p.Wait()
		case "not permitted":
			preforktest.Skipf(t, "needs root, to start processes of another user")
		default:
			t.Errorf("%s", got[0])
		}
	}
	if winner == nil {
		t.Fatalf("no process runs the service; reported holders: %v", holders)
	}
	if n := holders[strconv.Itoa(winner.PID())]; n != len(programs)-1 {
		t.Errorf("%d runs the service; reported holders: %v", winner.PID(), holders)
	}
	return winner
}

// Of 50 processes that start at the same time, one runs the service and 49
// report its pid. After a SIGKILL of that process the next one starts at once.
func TestConcurrentStarts(t *testing.T) {
	for _, user := range []string{"", otherUID} {
		name := "same user"
		var args []string
		if user != "" {
			name, args = "another user", []string{user}
		}
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			makeWorldWritable(t, s.Dir())
			rounds := 1
			if *long {
				rounds = 10
			}
			for range rounds {
				programs, release := startBlocked(t, s, 50, args...)
				release()
				winner := expectOneRunning(t, programs)
				checkRunning(t, s, winner.PID())
				winner.Kill()
				winner.Wait()
				from := time.Now()
				next := start(t, s, "starter", args...)
				next.Expect(`^running `)
				t.Logf("the next process ran %v after the kill", time.Since(from))
				next.Kill()
				next.Wait()
			}
		})
	}
}

// Frequent calls of Running do not make Begin fail.
func TestRunningDoesNotDisturbBegin(t *testing.T) {
	s := newService(t)
	done := make(chan struct{})
	for range 2 {
		go func() {
			for {
				select {
				case done <- struct{}{}:
					return
				default:
					s.Running()
				}
			}
		}()
	}
	for range 50 {
		l, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	<-done
	<-done
}

func init() { preforktest.Register("namespace", namespace) }

// namespace is process 1 of a PID namespace. It kills a program that runs the
// service, starts another program with the same pid, and starts the service
// again.
func namespace() {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		report("not permitted: %v", err)
		return
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		report("not permitted: %v", err)
		return
	}
	s := programService()
	for range 50 {
		pid := spawn("starter", s).kill()
		// The next process or thread in this namespace gets the pid.
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			report("not permitted: %v", err)
			return
		}
		recycled := spawn("sleeper", nil)
		if recycled.Process.Pid != pid {
			recycled.kill() // a thread of this process has got the pid
			continue
		}
		got, running, err := s.Running()
		report("pid %d recycled, in the file %t, running %d %t %v", pid, s.PID() == pid, got, running, err)
		again := spawn("starter", s).kill()
		report("another pid: %t", again != pid)
		recycled.kill()
		return
	}
	report("not permitted: no process got the recycled pid")
}

// spawned is a test program that another test program has started.
type spawned struct{ *exec.Cmd }

// spawn starts a test program. It waits for the pid of the program in the pid
// file of s, if s is not nil.
func spawn(program string, s *service.Service) spawned {
	cmd := exec.Command("/proc/self/exe", os.Args[1])
	cmd.Env = append(os.Environ(), "PREFORKTEST_PROGRAM="+program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		report("%v", err)
	}
	for s != nil && s.PID() != cmd.Process.Pid {
		time.Sleep(time.Millisecond)
	}
	return spawned{cmd}
}

// kill ends the program and returns its pid.
func (p spawned) kill() (pid int) {
	p.Process.Kill()
	p.Wait()
	return p.Process.Pid
}

func init() { preforktest.Register("sleeper", func() { time.Sleep(time.Hour) }) }

// needPIDNamespace skips the test if this process may not create a PID
// namespace.
func needPIDNamespace(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.list=^$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		preforktest.Skipf(t, "needs permission to create a PID namespace: %v", err)
	}
}

// A process with a recycled pid is not mistaken for the service.
func TestRecycledPID(t *testing.T) {
	s := newService(t)
	p := preforktest.New(t, "namespace", s.Dir())
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	preforktest.New(t, "sleeper") // started by the program namespace
	needPIDNamespace(t)
	p.Start()
	got := p.Expect(`^(not permitted.*|pid .*)$`)
	if strings.HasPrefix(got[0], "not permitted") {
		preforktest.Skipf(t, "%v", got[0])
	}
	if !regexp.MustCompile(`^pid \d+ recycled, in the file true, running 0 false <nil>$`).MatchString(got[0]) {
		t.Error(got[0])
	}
	p.Expect(`^another pid: true$`)
	p.Wait()
}

// A service in a PID namespace of its own is running when seen from outside,
// with an unknown pid.
func TestHolderInNamespace(t *testing.T) {
	needPIDNamespace(t)
	s := newService(t)
	p := preforktest.New(t, "starter", s.Dir())
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	p.Start()
	p.Expect(`^running `) // as pid 1, or as a child of pid 1
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v", pid, running, err)
	}
	if _, err := s.Begin(t.Context()); err == nil || err.Error() != "service test: already running with an unknown pid, perhaps in another container, or as workers of an earlier process" {
		t.Errorf("Begin: %v", err)
	}
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.Exited || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	p.Wait()
}
