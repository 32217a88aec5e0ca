//go:build unix && !linux

package resources

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// gidIsFirstGroup is true because FreeBSD and macOS use the first supplementary
// group as the effective group, and require one.
const gidIsFirstGroup = true

// threads is empty: on these systems all attributes belong to the process.
type threads struct{}

func openThreads(p plan) (threads, error) { return threads{}, nil }

func (threads) close() {}

func (threads) setNice(nice int) error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	if got, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || got != nice {
		return fmt.Errorf("set, but %d is in force (%v)", got, err)
	}
	return nil
}

func (threads) setAffinity([]int) error { return errors.ErrUnsupported }
func (threads) verify(plan, bool) error { return nil }
func (threads) setNoNewPrivs() error    { return errors.ErrUnsupported }
