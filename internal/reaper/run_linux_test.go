package reaper

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){"above": above})
}

const linkVar = "REAPER_TEST_LINK"

// above is a reaper, and below what it starts.
func above() {
	if os.Getenv(linkVar) != "" {
		below()
		return
	}
	path := "/proc/self/exe"
	if len(os.Args) > 1 && os.Args[1] == "nowhere" {
		path = "/no/such/program"
	}
	Run(path, os.Args, os.Environ(), func(pid, fd int) string { return fmt.Sprintf("%s=%d:%d", linkVar, pid, fd) })
}

// below is a manager that does what its arguments say, one after the other.
func below() {
	var pid, fd int
	fmt.Sscanf(os.Getenv(linkVar), "%d:%d", &pid, &fd)
	link, err := Join(pid, fd)
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	if _, err := Join(pid+1, fd); err == nil {
		fmt.Println("joined a stranger")
	}
	if _, err := Join(pid, 1); err == nil {
		fmt.Println("joined what is no socket")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	var successor *exec.Cmd
	if len(os.Args) > 1 && os.Args[1] == "orphan" { // before the test looks
		exec.Command("sh", "-c", "sleep 0.01 & sleep 0.02 &").Run()
	}
	fmt.Println("up", os.Getpid(), "of", link.PID())
	for i, arg := range os.Args[1:] {
		word, n, _ := strings.Cut(arg, "=")
		code, _ := strconv.Atoi(n)
		switch word {
		case "wait":
			<-c
			fmt.Println(os.Getpid(), "got it")
		case "exit":
			os.Exit(code)
		case "die":
			signal.Reset(syscall.Signal(code))
			unix.Kill(os.Getpid(), syscall.Signal(code))
			select {}
		case "gone":
			link.Wait()
			fmt.Println("the reaper is gone")
		case "nonsense":
			for _, text := range []string{"successor", "successor 1", "successor -1", "ended 2 0", "ended " + strconv.Itoa(os.Getpid()) + " 256", "successor 7 0", strings.Repeat("successor 7 ", 1000), "\x00", ""} {
				unix.Sendto(link.FD(), []byte(text), 0, nil)
			}
		case "again": // until USR1
			on := make(chan os.Signal, 1)
			signal.Notify(on, syscall.SIGCONT)
			fmt.Println("ready")
			for went := false; !went; {
				select {
				case <-on:
					fmt.Println("goes on")
				case <-c:
					went = true
				}
			}
		case "file":
			_, err := os.NewFile(3, "inherited").WriteString("through the reaper\n")
			fmt.Println("wrote:", err)
		case "successor": // what comes after "then" is for it
			successor = exec.Command("/proc/self/exe", os.Args[i+2:]...)
			successor.Env = append(os.Environ(), fmt.Sprintf("%s=%d:3", linkVar, link.PID()))
			successor.ExtraFiles = []*os.File{os.NewFile(uintptr(link.FD()), "link")}
			successor.Stdout, successor.Stderr = os.Stdout, os.Stderr
			if err := successor.Start(); err != nil {
				fmt.Println(err)
			}
			link.Successor(successor.Process.Pid)
			if n == "waited for" {
				successor.Wait()
				status := successor.ProcessState.Sys().(syscall.WaitStatus)
				link.Ended(successor.Process.Pid, max(0, status.ExitStatus()), max(0, status.Signal()))
			}
			os.Exit(0)
		}
	}
}

func TestRun(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		lines []string // before which USR1 is sent to the reaper
		code  int      // -1: by a signal
	}{
		"ends":                                   {[]string{"orphan", "wait", "exit=7"}, []string{"got it"}, 7},
		"is signalled":                           {[]string{"wait", "wait", "exit=3"}, []string{"got it", "got it"}, 3},
		"is ended by a signal":                   {[]string{"die=15"}, nil, -1},
		"dumps":                                  {[]string{"die=6"}, nil, 0}, // Go says 2, or the kernel 128 and the signal
		"has a successor":                        {[]string{"successor", "wait", "exit=5"}, []string{"got it"}, 5},
		"has a successor of a successor":         {[]string{"successor", "successor", "wait", "exit=6"}, []string{"got it"}, 6},
		"says nonsense":                          {[]string{"nonsense", "wait", "exit=8"}, []string{"got it"}, 8},
		"says nonsense, and has a successor":     {[]string{"nonsense", "successor", "wait", "exit=9"}, []string{"got it"}, 9},
		"waits for its successor":                {[]string{"successor=waited for", "exit=4"}, nil, 4},
		"waits for its successor that is killed": {[]string{"successor=waited for", "die=9"}, nil, 128 + 9},
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.Start(t, "above", tt.args...)
			for i := 0; i <= strings.Count(strings.Join(tt.args, " "), "successor"); i++ {
				p.Expect(`^up \d+ of ` + strconv.Itoa(p.PID()) + `$`)
			}
			for _, line := range tt.lines {
				preforktest.WaitFor(t, "the manager is the only child", func() bool {
					all, err := preforktest.Children(p.PID())
					return err != nil || len(all) == 1
				})
				p.Signal(syscall.SIGUSR1)
				p.Expect(line + `$`)
			}
			state := p.Wait()
			status := state.Sys().(syscall.WaitStatus)
			switch {
			case tt.code < 0 && status.Signal() != syscall.SIGTERM, tt.code > 0 && status.ExitStatus() != tt.code, tt.code == 0 && state.Success():
				t.Errorf("it ended with %v", state)
			}
		})
	}
}

func TestRunPassesDescriptors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := preforktest.New(t, "above", "file", "exit=0")
	p.Cmd.ExtraFiles = []*os.File{w}
	p.Start()
	w.Close()
	p.Expect(`^wrote: <nil>$`)
	buf := make([]byte, 100)
	if n, err := r.Read(buf); string(buf[:n]) != "through the reaper\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	p.Wait()
}

// A program that cannot be started is an end with a reason.
func TestRunFails(t *testing.T) {
	p := preforktest.Start(t, "above", "nowhere")
	p.Expect(`^prefork: the reaper, process ` + strconv.Itoa(p.PID()) + `, cannot start the program: fork/exec /no/such/program: no such file or directory$`)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("it ended with %v", state)
	}
}

func TestRunGone(t *testing.T) {
	p := preforktest.Start(t, "above", "gone")
	p.Expect(`^up`)
	p.Kill()
	p.Expect(`^the reaper is gone$`)
	p.WaitGone()
}

// What the terminal stops is the manager. The reaper stops with it, so that the shell sees it, and when it goes on the manager
// does, once: a second SIGCONT, late, would undo the next stop.
func TestRunStops(t *testing.T) {
	p := preforktest.Start(t, "above", "again", "exit=7")
	pid, err := strconv.Atoi(p.Expect(`^up (\d+)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	p.Expect(`^ready$`)
	stopped := func(what string, pid int) {
		t.Helper()
		preforktest.WaitFor(t, what, func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err == nil && strings.Contains(string(stat), ") T ")
		})
	}
	const n = 300
	for i := range n {
		sig := []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}[i%3]
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		stopped(fmt.Sprintf("stop %d is seen by the reaper", i), p.PID())
		p.Signal(syscall.SIGCONT)
		p.Expect(`^goes on$`)
	}
	// Where somebody else has stopped it, there is no shell that waits for the reaper, which passes on this SIGCONT, too.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped("the manager is stopped", pid)
	p.Signal(syscall.SIGCONT)
	p.Expect(`^goes on$`)
	p.Signal(syscall.SIGUSR1)
	if state := p.Wait(); state.ExitCode() != 7 {
		t.Errorf("it ended with %v", state)
	}
	if got := strings.Count(strings.Join(p.Lines(), "\n"), "goes on"); got != n+1 {
		t.Errorf("the manager went on %d times, want %d", got, n+1)
	}
}
