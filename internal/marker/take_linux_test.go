package marker

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("dying", dyingProgram) }

// dyingProgram is a manager that ends before the process that it has started
// reads its marker. That process is the same program without arguments. Another
// process still has a copy of the manager's control socket, like one that the
// manager was just starting.
func dyingProgram() {
	if len(os.Args) == 1 {
		takeProgram()
		return
	}
	ours, control, err := socketpair()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, other, err := socketpair()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	cmd := exec.Command("/bin/sh", "-c", `read line; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), os.Args[1]+"="+aMarker(os.Getpid()).String())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{control, other, other, ours}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
	}
}

// A worker whose manager has died does not become a manager, even if its control
// socket is still open. A successor does.
func TestTakeAfterDeath(t *testing.T) {
	for name, want := range map[string]string{Env: "role 3, ", SuccessorEnv: "role 2, "} {
		cmd := exec.Command(os.Args[0], name)
		cmd.Env = preforktest.Environ(t, "dying")
		in, out := startUnreaped(t, cmd)
		awaitZombie(t, cmd)
		fmt.Fprintln(in, "now")
		in.Close()
		got, err := io.ReadAll(out)
		if !strings.HasPrefix(string(got), want) || name == Env && !strings.Contains(string(got), ErrGone.Error()) {
			t.Errorf("%s of a manager that has ended: %s, %v", name, got, err)
		}
	}
}

// isGone uses isZombie if the kernel refuses pidfds.
func TestIsZombie(t *testing.T) {
	cmd := exec.Command("cat")
	in, _ := startUnreaped(t, cmd)
	if isZombie(cmd.Process.Pid) {
		t.Error("true for a process that lives")
	}
	in.Close()
	awaitZombie(t, cmd)
	if !isZombie(cmd.Process.Pid) {
		t.Error("false for a process that has ended and was not reaped")
	}
}

// startUnreaped starts a process that is reaped when the test ends. A
// preforktest.Program is reaped as soon as it exits.
func startUnreaped(t *testing.T, cmd *exec.Cmd) (in io.WriteCloser, out io.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err == nil {
		out, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return in, out
}

// awaitZombie waits until the process exits, and does not reap it.
func awaitZombie(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}
