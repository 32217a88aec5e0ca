//go:build unix && !linux

package chain

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/resources"
)

func rlimitNumber(name string) (number int, ok bool) { return resources.RlimitNumber(name) }

func niceOfThread() (int, error) { return unix.Getpriority(unix.PRIO_PROCESS, 0) }

func setNoNewPrivs() error {
	return fmt.Errorf("-N: only Linux has it: %w", errors.ErrUnsupported)
}

// enter is as that of Linux, but a low limit of memory can end this program.
func enter(changes []change, paths, argv, env []string) (path string, refused bool, err error) {
	for _, c := range changes {
		if err := syscall.Setrlimit(c.number, &c.after); err != nil {
			return paths[0], false, os.NewSyscallError("setrlimit", err)
		}
	}
	for _, path := range paths {
		err = syscall.Exec(path, argv, env)
		failed, ok := err.(syscall.Errno)
		if !ok || !goesOn(failed) {
			return path, refused, err
		}
		refused = refused || failed == syscall.EACCES || failed == syscall.EPERM
	}
	return "", refused, err
}
