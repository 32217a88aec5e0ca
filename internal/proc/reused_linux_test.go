package proc

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// reused is the first process of a PID namespace. A process of its table ends, somebody else waits for it, and a stranger gets
// its pid, and is the first of a group of that number. The table, which has not heard of it yet, signals its process.
var reusedProgram = program("reused", func([]string) {
	notes := make(chan Note, 1000)
	table, err := newPidfdTable(func(n Note) { notes <- n })
	check(err)
	for id := uint64(1); id <= 100; id++ {
		p, err := table.Start(id, Spec{Path: "/bin/true", Args: []string{"true"}, Files: []uintptr{0, 1, 2}, Group: true})
		check(err)
		for err = syscall.EINTR; err == syscall.EINTR; {
			_, err = syscall.Wait4(p.Pid(), nil, 0, nil)
		}
		check(err)
		// The next process or thread in this namespace gets the pid.
		check(os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(p.Pid()-1)), 0))
		stranger := exec.Command("/bin/cat")
		stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := stranger.StdinPipe()
		check(err)
		out, err := stranger.StdoutPipe()
		check(err)
		check(stranger.Start())
		if stranger.Process.Pid == p.Pid() {
			check(p.Signal(syscall.SIGKILL))
			check(p.SignalGroup(syscall.SIGKILL))
			fmt.Fprintln(in, "the stranger lives")
			line, err := bufio.NewReader(out).ReadString('\n')
			fmt.Printf("%s %v, ", strings.TrimSpace(line), err)
			in.Close()
			fmt.Println(stranger.Wait())
			os.Exit(0)
		}
		in.Close() // a thread of this process got it
		stranger.Wait()
		p.Reap()
	}
	fmt.Println("no luck with pids")
})

// No stranger is signalled, also where the pid of a process means one already.
func TestPidOfAStranger(t *testing.T) {
	if err := probePidfd(); err != nil || os.Geteuid() != 0 {
		programs.used[reusedProgram] = true
		t.Skipf("pidfds (%v) and root are needed", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = programEnv(reusedProgram)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if strings.HasPrefix(string(out), "no luck") {
		t.Skip(string(out))
	}
	if want := "the stranger lives <nil>, <nil>\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}
