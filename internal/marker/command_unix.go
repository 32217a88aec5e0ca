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
// has applied the plan that came with it. It must be called before Take. The
// variable has no effect if another process has set it, or if this process has
// the privileges of another user.
func BecomeCommand(confine func(plan string) error) {
	value, ok := takeEnv(CommandEnv)
	if !ok {
		return
	}
	c, ok := parseCommand(value)
	parent := os.Getppid() // 0 in a new PID namespace, which a hook may ask for
	if !ok || parent != 0 && c.Manager != parent || os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return
	}
	if c.Listen {
		os.Setenv(listenPIDEnv, strconv.Itoa(os.Getpid()))
	}
	err := confineCommand(c.Plan, confine)
	if err == nil && c.Dir != "" {
		err = os.Chdir(c.Dir)
	}
	if err == nil {
		err = execute(c.Path)
	}
	fmt.Fprintf(os.Stderr, "prefork: cannot run the command %s: %v\n", c.Path, err)
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
// 2 s.
func execute(path string) error {
	err := syscall.Exec(path, os.Args, os.Environ())
	for wait, left := 20*time.Millisecond, 2*time.Second; err == syscall.ETXTBSY && left > 0; wait *= 2 {
		wait = min(wait, left)
		time.Sleep(wait)
		left -= wait
		err = syscall.Exec(path, os.Args, os.Environ())
	}
	return err
}
