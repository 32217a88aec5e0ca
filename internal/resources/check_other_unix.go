//go:build unix && !linux

package resources

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func unsupported(field string) error {
	return fieldError(field, "%w on this system", errors.ErrUnsupported)
}

func checkCPUs(_ *Settings, c Config) error {
	if c.CPUs != nil {
		return unsupported("CPUs")
	}
	if c.CPUsPerWorker != 0 {
		return unsupported("CPUsPerWorker")
	}
	return nil
}

func checkNoNewPrivs(_ *Settings, c Config) error {
	if c.NoNewPrivs {
		return unsupported("NoNewPrivs")
	}
	return nil
}

func checkCgroup(_ *Settings, c Config) error {
	if c.Cgroup != "" {
		return unsupported("Cgroup")
	}
	return nil
}

func (*Settings) addCgroup(*syscall.SysProcAttr) error { return nil }

func checkRoot() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w, not as user %d", errNotRoot, os.Geteuid())
	}
	return nil
}

func checkMayNice(nice int) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil && nice < now {
		err = checkRoot()
	}
	return err
}

func checkMayRaiseLimits() error { return checkRoot() }

func maxLimit(string) uint64 { return Unlimited }

func checkMayBecome(*identity) error {
	if err := checkRoot(); err != nil {
		return &FieldError{"User", err}
	}
	return nil
}

func checkMayChroot() error { return checkRoot() }
