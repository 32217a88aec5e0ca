//go:build unix

package resources

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

var errNotRoot = errors.New("the manager must run as root")

// RlimitNumber returns the number of a limit, if this system has it.
func RlimitNumber(name string) (number int, ok bool) {
	switch name {
	case "core":
		return unix.RLIMIT_CORE, true
	case "cpu":
		return unix.RLIMIT_CPU, true
	case "data":
		return unix.RLIMIT_DATA, true
	case "fsize":
		return unix.RLIMIT_FSIZE, true
	case "nofile":
		return unix.RLIMIT_NOFILE, true
	case "stack":
		return unix.RLIMIT_STACK, true
	}
	return moreRlimits(name)
}

// toKernel and fromKernel translate Unlimited. RLIM_INFINITY and the type of
// the fields differ between systems.
func toKernel[T int64 | uint64](dst *T, n uint64) {
	*dst = T(min(n, unix.RLIM_INFINITY))
}

// SetSoft sets a soft limit; Unlimited is none.
func SetSoft(l *syscall.Rlimit, n uint64) { toKernel(&l.Cur, n) }

func fromKernel[T int64 | uint64](n T) uint64 {
	if uint64(n) >= unix.RLIM_INFINITY {
		return Unlimited
	}
	return uint64(n)
}

func checkLimit(l Rlimit) error {
	number, ok := RlimitNumber(l.Resource)
	if !ok {
		return fmt.Errorf("%w: this system does not have this limit", errors.ErrUnsupported)
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(number, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if most := maxLimit(l.Resource); l.Hard > most {
		return fmt.Errorf("a hard limit of %s is above the system's (%s)", amount(l.Hard), amount(most))
	}
	if hard := fromKernel(now.Max); l.Hard > hard {
		if err := checkMayRaiseLimits(); err != nil {
			return fmt.Errorf("a hard limit of %s is above the manager's (%s): %w", amount(l.Hard), amount(hard), err)
		}
	}
	return nil
}

func checkMayUmask() error { return nil }

func checkUser(s *Settings, c Config) error {
	if c.User == "" {
		if c.Group != "" {
			return fieldError("Group", "User must be set, too")
		}
		if c.Groups != nil {
			return fieldError("Groups", "User must be set, too")
		}
		return nil
	}
	n, err := readNames()
	if err != nil {
		return &FieldError{"User", err}
	}
	id, err := identify(c, n)
	if err != nil {
		return err
	}
	if !id.isCurrent() {
		if err := checkMayBecome(id); err != nil {
			return err
		}
	}
	s.plan.identity = id
	return nil
}

// isCurrent reports whether this process has the identity id already; if so, it
// needs no privileges.
func (id *identity) isCurrent() bool {
	groups, err := syscall.Getgroups()
	return err == nil && syscall.Getuid() == int(id.uid) && syscall.Geteuid() == int(id.uid) &&
		syscall.Getgid() == int(id.gid) && syscall.Getegid() == int(id.gid) && sameGroups(groups, id)
}

// sameGroups reports whether groups are the supplementary groups of id. Some
// systems include the group itself; it is ignored.
func sameGroups(groups []int, id *identity) bool {
	var all []uint32
	for _, g := range groups {
		if uint32(g) != id.gid {
			all = append(all, uint32(g))
		}
	}
	slices.Sort(all)
	return slices.Equal(slices.Compact(all), id.groups)
}

// Attr returns a copy of attr, which may be nil, with the settings for starting
// a worker: the cgroup and, for a command that no Apply precedes, the user and the
// root directory. A field that attr sets takes precedence.
//
// A process with a Chroot must be started in the directory "/", and its program
// is looked up below the new root. The caller may set Pdeathsig: the runtime
// sets the parent-death signal after the user, which would clear it.
//
// If the cgroup was removed and made again, Attr opens it again, so only one
// goroutine at a time may call Attr. It fails if there is no usable cgroup.
func (s *Settings) Attr(attr *syscall.SysProcAttr, command bool) (*syscall.SysProcAttr, error) {
	all := new(syscall.SysProcAttr)
	if attr != nil {
		*all = *attr
	}
	if err := s.addCgroup(all); err != nil || !command {
		return all, err
	}
	if all.Chroot == "" {
		all.Chroot = s.plan.chroot
	}
	if id := s.plan.identity; id != nil && all.Credential == nil && !id.isCurrent() {
		all.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: slices.Clone(id.groups)}
	}
	return all, nil
}
