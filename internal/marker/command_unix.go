//go:build unix

package marker

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BecomeCommand replaces this process by the program in CommandEnv, after confine
// has applied the plan that came with it. If that fails, it calls report with the
// socket to the manager, and exits. The error of an execution is an errno, and one
// before it is not. Directly before the execution it calls report with nil.
// BecomeCommand must be called before Take. The variable has no
// effect if another process has set it, or if this process has the privileges of
// another user.
func BecomeCommand(confine func(plan string) error, report func(socket int, err error) error) {
	value, ok := takeEnv(CommandEnv)
	if !ok {
		return
	}
	c, ok := parseCommand(value)
	parent := os.Getppid() // 0 in a new PID namespace, which a hook may ask for
	if !ok || parent != 0 && c.Manager != parent || os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return
	}
	if c.Report != 0 && !c.Keep {
		unix.CloseOnExec(c.Report)
	}
	if c.Listen {
		os.Setenv(listenPIDEnv, strconv.Itoa(os.Getpid()))
	}
	err := confineCommand(c.Plan, confine)
	if err == nil && c.Dir != "" {
		err = os.Chdir(c.Dir)
	}
	if err == nil {
		if c.Report != 0 {
			report(c.Report, nil)
		}
		err = execute(c.Path)
	}
	if c.Report == 0 || report(c.Report, err) != nil {
		fmt.Fprintf(os.Stderr, "prefork: cannot run the command %s: %v\n", c.Path, err)
	}
	syscall.Exit(127)
}

func confineCommand(plan int, confine func(plan string) error) error {
	if plan == 0 {
		return nil
	}
	text, err := readFile(plan)
	if err != nil {
		return fmt.Errorf("descriptor %d has no plan: %w", plan, err)
	}
	unix.Close(plan)
	defer keepParentDeathSignal()()
	return confine(text)
}

// execute executes a program. A file that is open for writing is tried again for
// 2 s, with the delays of package pool.
func execute(path string) error {
	err := syscall.Exec(path, os.Args, os.Environ())
	for wait, left := 20*time.Millisecond, 2*time.Second; err == syscall.ETXTBSY && left > 0; wait = min(2*wait, 80*time.Millisecond) {
		wait = min(wait, left)
		time.Sleep(wait)
		left -= wait
		err = syscall.Exec(path, os.Args, os.Environ())
	}
	return err
}
