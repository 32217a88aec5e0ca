//go:build unix && !linux

package resources

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FreeBSD and macOS take the first supplementary group for the effective group, and one must be given.
const groupIsFirst = true

// threads have nothing of their own here: these systems keep all of this for the process.
type threads struct{}

func openThreads(p plan) (threads, error) { return threads{}, nil }

func (threads) close() {}

func (threads) nice(nice int) error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	if got, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || got != nice {
		return fmt.Errorf("set, but %d is in force (%v)", got, err)
	}
	return nil
}

func (threads) affinity([]int) error    { return errors.ErrUnsupported }
func (threads) verify(plan, bool) error { return nil }
func (threads) noNewPrivs() error       { return errors.ErrUnsupported }
