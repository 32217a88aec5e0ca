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

// atOnce starts n programs that go on together when the returned function is called.
func atOnce(t *testing.T, s *service.Service, n int, args ...string) (programs []*preforktest.Program, release func()) {
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
		p.Expect(`^up$`)
	}
	return programs, func() { w.Close() }
}

// oneRuns waits until one of the programs runs the service and all others have said that it does.
func oneRuns(t *testing.T, programs []*preforktest.Program) (winner *preforktest.Program) {
	t.Helper()
	told := make(map[string]int)
	for _, p := range programs {
		got := p.Expect(`^(runs|held by|not permitted|cannot)(?: (\d+))?.*$`)
		switch got[1] {
		case "runs":
			if winner != nil {
				t.Errorf("%d and %d run", winner.PID(), p.PID())
			}
			winner = p
		case "held by":
			told[got[2]]++
			p.Wait()
		case "not permitted":
			t.Skip("this process may not start one of another user: run as root")
		default:
			t.Errorf("%s", got[0])
		}
	}
	if winner == nil {
		t.Fatalf("nobody runs; told: %v", told)
	}
	if n := told[strconv.Itoa(winner.PID())]; n != len(programs)-1 {
		t.Errorf("%d runs, and the others said: %v", winner.PID(), told)
	}
	return winner
}

// 50 processes started at once: one runs, 49 say who does. After kill -9 of the one the next starts at once.
func TestStartersAtOnce(t *testing.T) {
	for _, user := range []string{"", nobody} {
		name := "same user"
		var args []string
		if user != "" {
			name, args = "another user", []string{user}
		}
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			open(t, s.Dir())
			rounds := 1
			if *long {
				rounds = 10
			}
			for range rounds {
				programs, release := atOnce(t, s, 50, args...)
				release()
				winner := oneRuns(t, programs)
				wantRunning(t, s, winner.PID())
				winner.Kill()
				winner.Wait()
				from := time.Now()
				next := start(t, s, "starter", args...)
				next.Expect(`^runs `)
				t.Logf("after the kill the next ran within %v", time.Since(from))
				next.Kill()
				next.Wait()
			}
		})
	}
}

// While a process runs and others look who it is, again and again, a start is never refused because of a look.
func TestLooksDoNotGetInTheWay(t *testing.T) {
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

func init() { programs["namespace"] = namespace }

// namespace is the first process of a PID namespace. It kills a program that runs the service, has its pid given to
// another process, and starts the service anew.
func namespace() {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		say("not permitted: %v", err)
		return
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		say("not permitted: %v", err)
		return
	}
	s := in()
	begin := func(program string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", os.Args[1])
		cmd.Env = append(os.Environ(), "PREFORKTEST_PROGRAM="+program)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			say("%v", err)
		}
		return cmd
	}
	for try := 1; ; try++ {
		first := begin("starter")
		for s.PID() != first.Process.Pid {
			time.Sleep(time.Millisecond)
		}
		pid := first.Process.Pid
		first.Process.Kill()
		first.Wait()
		// The next process or thread in this namespace gets the pid.
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			say("not permitted: %v", err)
			return
		}
		stranger := begin("stranger")
		if stranger.Process.Pid != pid {
			// A thread of this process got it.
			stranger.Process.Kill()
			stranger.Wait()
			if try < 50 {
				continue
			}
			say("not permitted: no luck with pids")
			return
		}
		got, running, err := s.Running()
		say("pid %d is a stranger's, file says %t, running %d %t %v", pid, s.PID() == pid, got, running, err)
		second := begin("starter")
		for s.PID() != second.Process.Pid {
			time.Sleep(time.Millisecond)
		}
		say("again by another: %t", second.Process.Pid != pid)
		second.Process.Kill()
		second.Wait()
		stranger.Process.Kill()
		stranger.Wait()
		return
	}
}

func init() { programs["stranger"] = func() { time.Sleep(time.Hour) } }

// A recycled pid does not mislead; and from outside the namespace a service is seen to run, under no pid.
func TestRecycledPID(t *testing.T) {
	s := newService(t)
	p := preforktest.New(t, "namespace", s.Dir())
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		t.Skip("namespaces are not permitted here: run as root")
	}
	p.Start()
	preforktest.New(t, "stranger") // is started by the other
	got := p.Expect(`^(not permitted.*|pid .*)$`)
	if strings.HasPrefix(got[0], "not permitted") {
		t.Skip(got[0])
	}
	if !regexp.MustCompile(`^pid \d+ is a stranger's, file says true, running 0 false <nil>$`).MatchString(got[0]) {
		t.Error(got[0])
	}
	p.Expect(`^again by another: true$`)
	p.Wait()
}

// A service in a PID namespace of its own is seen to run from outside, as one whose pid means nothing here.
func TestHolderInNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces are not permitted here: run as root")
	}
	s := newService(t)
	p := preforktest.New(t, "starter", s.Dir())
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	p.Start()
	p.Expect(`^runs `) // 1, or what its process 1 has started
	if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
		t.Errorf("Running = %d, %t, %v", pid, running, err)
	}
	if _, err := s.Begin(t.Context()); err == nil || err.Error() != "service test: it is already running, as a process that cannot be seen from here" {
		t.Errorf("Begin: %v", err)
	}
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.Gone || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	p.Wait()
}
