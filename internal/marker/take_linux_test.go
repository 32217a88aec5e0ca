package marker

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dyingProgram is a manager that ends before the process that it has started reads
// its marker. Another process still has a copy of the manager's control socket,
// like one that the manager was just starting.
var dyingProgram = program("dying", func(args []string) {
	control, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	other, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	path, _ := os.Executable()
	env := append(programEnv(takeProgram), args[0]+"="+aMarker(os.Getpid()).String(), "PROGRAM="+path)
	files := []uintptr{0, 1, 2, uintptr(control[0]), uintptr(other[0]), uintptr(other[0]), uintptr(control[1])}
	if _, _, err := syscall.StartProcess("/bin/sh", []string{"sh", "-c", `read line; exec "$PROGRAM"`}, &syscall.ProcAttr{Env: env, Files: files}); err != nil {
		fmt.Println(err)
	}
})

// A worker whose manager has died does not become a manager, even if its control
// socket is still open. A successor does.
func TestTakeAfterDeath(t *testing.T) {
	for name, want := range map[string]string{Env: "role 3, ", SuccessorEnv: "role 2, "} {
		p := start(t, self(t), dyingProgram, []string{name}, nil)
		var info unix.Siginfo
		for err := error(unix.EINTR); err == unix.EINTR; {
			err = unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		}
		fmt.Fprintln(p.in, "now")
		p.in.Close()
		if got := p.text(); !strings.HasPrefix(got, want) || name == Env && !strings.Contains(got, ErrGone.Error()) {
			t.Errorf("%s of a manager that has ended: %s", name, got)
		}
	}
}

// isGone uses isZombie if the kernel refuses pidfds.
func TestIsZombie(t *testing.T) {
	p := start(t, self(t), waitProgram, nil, nil)
	p.expect("up")
	if isZombie(p.pid) {
		t.Error("true for a process that lives")
	}
	p.in.Close()
	var info unix.Siginfo
	for err := error(unix.EINTR); err == unix.EINTR; {
		err = unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if !isZombie(p.pid) {
		t.Error("false for a process that has ended and was not reaped")
	}
}

func (p *process) expect(want string) {
	p.t.Helper()
	got, err := p.lines.ReadString('\n')
	if err != nil || got != want+"\n" {
		p.t.Fatalf("output %q (%v), want %q", got, err, want)
	}
}

// waitProgram prints a line and waits for the end of its standard input.
var waitProgram = program("wait", func([]string) {
	fmt.Println("up")
	io.Copy(io.Discard, os.Stdin)
})
