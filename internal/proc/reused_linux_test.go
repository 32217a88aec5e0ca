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

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("reused", reusedProgram) }

// reusedProgram is process 1 of a PID namespace. A process of its table
// exits, other code waits for it, and an unrelated process gets its pid and
// leads a group of that number. The table has received no event yet and signals
// its process.
func reusedProgram() {
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
		other := exec.Command("/bin/cat")
		other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := other.StdinPipe()
		check(err)
		out, err := other.StdoutPipe()
		check(err)
		check(other.Start())
		if other.Process.Pid == p.Pid() {
			check(p.Signal(syscall.SIGKILL))
			check(p.SignalGroup(syscall.SIGKILL))
			fmt.Fprintln(in, "the other process lives")
			line, err := bufio.NewReader(out).ReadString('\n')
			fmt.Printf("%s %v, ", strings.TrimSpace(line), err)
			in.Close()
			fmt.Println(other.Wait())
			os.Exit(0)
		}
		in.Close() // a thread of this process got the pid
		other.Wait()
		p.Reap()
	}
	fmt.Println("pid not reused")
}

// The table does not signal an unrelated process that has got the pid.
func TestReusedPid(t *testing.T) {
	if err := probePidfd(); err != nil || os.Geteuid() != 0 {
		preforktest.Skipf(t, "the test needs pidfds (%v) and root", err)
	}
	p := preforktest.New(t, "reused")
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	state := p.Start().Wait()
	p.WaitGone()
	out := strings.Join(p.Lines(), "\n")
	if strings.HasPrefix(out, "pid not reused") {
		preforktest.Skipf(t, "%s", out)
	}
	if want := "the other process lives <nil>, <nil>"; !state.Success() || out != want {
		t.Errorf("%q, %v; want %q", out, state, want)
	}
}
