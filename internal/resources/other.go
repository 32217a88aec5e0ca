//go:build !unix

package resources

import (
	"errors"
	"syscall"
)

// On systems without Unix processes, New returns an error.
func unsupported(field string) error {
	return fieldError(field, "%w on this system", errors.ErrUnsupported)
}

func checkCPUs(_ *Settings, c Config) error {
	if c.CPUs != nil || c.CPUsPerWorker != 0 {
		return unsupported("CPUs")
	}
	return nil
}

func checkUser(_ *Settings, c Config) error {
	if c.User != "" || c.Group != "" || c.Groups != nil {
		return unsupported("User")
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

func checkLimit(Rlimit) error { return errors.ErrUnsupported }
func checkMayNice(int) error  { return errors.ErrUnsupported }
func checkMayChroot() error   { return errors.ErrUnsupported }
func checkMayUmask() error    { return unsupported("Umask") }

// Attr returns attr: on this system there is nothing to add.
func (*Settings) Attr(attr *syscall.SysProcAttr, _ bool) (*syscall.SysProcAttr, error) {
	return attr, nil
}

// Apply returns an error for every plan except the empty one.
func Apply(text string) error {
	if p, err := parsePlan(text); err != nil {
		return err
	} else if p.String() != "" {
		return errors.ErrUnsupported
	}
	return nil
}
