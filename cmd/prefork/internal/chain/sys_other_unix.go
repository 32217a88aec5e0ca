//go:build unix && !linux

package chain

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/resources"
)

func rlimitNumber(name string) (number int, ok bool) { return resources.RlimitNumber(name) }

func niceOfThread() (int, error) { return unix.Getpriority(unix.PRIO_PROCESS, 0) }

func setNoNewPrivs() error {
	return fmt.Errorf("-N: only Linux has it: %w", errors.ErrUnsupported)
}
