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

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("reaper", reaperProgram) }

const linkVar = "REAPER_TEST_LINK"

// reaperProgram is a reaper. The process that it starts runs managerProgram.
func reaperProgram() {
	if os.Getenv(linkVar) != "" {
		managerProgram()
		return
	}
	path := "/proc/self/exe"
	if len(os.Args) > 1 && os.Args[1] == "nowhere" {
		path = "/no/such/program"
	}
	Run(Config{Path: path, Args: os.Args, Env: os.Environ(), LinkEnv: func(pid, fd int) string { return fmt.Sprintf("%s=%d:%d", linkVar, pid, fd) }})
}

// managerProgram is a manager that carries out its arguments in order.
func managerProgram() {
	var pid, fd int
	fmt.Sscanf(os.Getenv(linkVar), "%d:%d", &pid, &fd)
	link, err := Join(pid, fd)
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	if _, err := Join(pid+1, fd); err == nil {
		fmt.Println("joined an unknown process")
	}
	if _, err := Join(pid, 1); err == nil {
		fmt.Println("joined a descriptor that is not a socket")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)

	if len(os.Args) > 1 && os.Args[1] == "orphan" { // before the first line of output
		exec.Command("sh", "-c", "sleep 0.01 & sleep 0.02 &").Run()
	}
	fmt.Println("up", os.Getpid(), "of", link.PID())
	for i, arg := range os.Args[1:] {
		word, n, _ := strings.Cut(arg, "=")
		code, _ := strconv.Atoi(n)
		switch word {
		case "wait":
			<-c
			fmt.Println(os.Getpid(), "got USR1")
		case "exit":
			os.Exit(code)
		case "die":
			signal.Reset(syscall.Signal(code))
			unix.Kill(os.Getpid(), syscall.Signal(code))
			select {}
		case "gone":
			link.Wait()
			fmt.Println("reaper exited")
		case "malformed":
			sendMalformed(link)
		case "resume":
			reportResumes(c)
		case "file":
			_, err := os.NewFile(3, "inherited").WriteString("through the reaper\n")
			fmt.Println("wrote:", err)
		case "successor": // the remaining arguments are for the successor
			startSuccessor(link, os.Args[i+2:], n == "reaped")
			os.Exit(0)
		}
	}
}

func sendMalformed(link *Link) {
	for _, text := range []string{"successor", "successor 1", "successor -1", "ended 2 0", "ended " + strconv.Itoa(os.Getpid()) + " 256", "successor 7 0", strings.Repeat("successor 7 ", 1000), "\x00", ""} {
		unix.Sendto(link.FD(), []byte(text), 0, nil)
	}
}

// reportResumes prints a line for each SIGCONT, until a signal on done.
func reportResumes(done <-chan os.Signal) {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	fmt.Println("ready")
	for {
		select {
		case <-resumed:
			fmt.Println("resumed")
		case <-done:
			return
		}
	}
}

// startSuccessor starts a successor, and optionally waits for its exit.
func startSuccessor(link *Link, args []string, reap bool) {
	successor := exec.Command("/proc/self/exe", args...)
	successor.Env = append(os.Environ(), fmt.Sprintf("%s=%d:3", linkVar, link.PID()))
	successor.ExtraFiles = []*os.File{os.NewFile(uintptr(link.FD()), "link")}
	successor.Stdout, successor.Stderr = os.Stdout, os.Stderr
	if err := successor.Start(); err != nil {
		fmt.Println(err)
	}
	link.ReportSuccessor(successor.Process.Pid)
	if reap {
		successor.Wait()
		status := successor.ProcessState.Sys().(syscall.WaitStatus)
		link.ReportExit(successor.Process.Pid, max(0, status.ExitStatus()), max(0, status.Signal()))
	}
}

func TestRun(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		lines []string // expected output, each after a USR1 to the reaper
		code  int      // -1: killed by SIGTERM; 0: any failure
	}{
		"exits":                          {[]string{"orphan", "wait", "exit=7"}, []string{"got USR1"}, 7},
		"is signalled":                   {[]string{"wait", "wait", "exit=3"}, []string{"got USR1", "got USR1"}, 3},
		"is killed by a signal":          {[]string{"die=15"}, nil, -1},
		"dumps core":                     {[]string{"die=6"}, nil, 0}, // code 2 or 134
		"has a successor":                {[]string{"successor", "wait", "exit=5"}, []string{"got USR1"}, 5},
		"has a second successor":         {[]string{"successor", "successor", "wait", "exit=6"}, []string{"got USR1"}, 6},
		"sends malformed messages":       {[]string{"malformed", "wait", "exit=8"}, []string{"got USR1"}, 8},
		"sends malformed, has successor": {[]string{"malformed", "successor", "wait", "exit=9"}, []string{"got USR1"}, 9},
		"reaps its successor":            {[]string{"successor=reaped", "exit=4"}, nil, 4},
		"reaps its killed successor":     {[]string{"successor=reaped", "die=9"}, nil, 128 + 9},
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.Start(t, "reaper", tt.args...)
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
				t.Errorf("reaper ended with %v", state)
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
	p := preforktest.New(t, "reaper", "file", "exit=0")
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

// TestRunFails checks that a reaper whose program cannot be started reports the
// reason and exits.
func TestRunFails(t *testing.T) {
	p := preforktest.Start(t, "reaper", "nowhere")
	p.Expect(`^prefork: reaper \(pid ` + strconv.Itoa(p.PID()) + `\): start program: fork/exec /no/such/program: no such file or directory$`)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("reaper ended with %v", state)
	}
}

func TestRunGone(t *testing.T) {
	p := preforktest.Start(t, "reaper", "gone")
	p.Expect(`^up`)
	p.Kill()
	p.Expect(`^reaper exited$`)
	p.WaitGone()
}

// TestRunStops checks that the reaper stops when the terminal stops the
// manager, so that the shell notices, and that the manager is resumed once when
// the reaper is. A second, late SIGCONT would undo the next stop.
func TestRunStops(t *testing.T) {
	p := preforktest.Start(t, "reaper", "resume", "exit=7")
	pid, err := strconv.Atoi(p.Expect(`^up (\d+)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	p.Expect(`^ready$`)
	waitStopped := func(reason string, pid int) {
		t.Helper()
		preforktest.WaitFor(t, reason, func() bool {
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
		waitStopped(fmt.Sprintf("reaper follows stop %d", i), p.PID())
		p.Signal(syscall.SIGCONT)
		p.Expect(`^resumed$`)
	}
	// A SIGSTOP from another process involves no shell that waits for the
	// reaper. The reaper forwards this SIGCONT too.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitStopped("manager is stopped", pid)
	p.Signal(syscall.SIGCONT)
	p.Expect(`^resumed$`)
	p.Signal(syscall.SIGUSR1)
	if state := p.Wait(); state.ExitCode() != 7 {
		t.Errorf("reaper ended with %v", state)
	}
	if got := strings.Count(strings.Join(p.Lines(), "\n"), "resumed"); got != n+1 {
		t.Errorf("manager was resumed %d times, want %d", got, n+1)
	}
}
