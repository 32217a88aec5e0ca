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

var errNotRoot = errors.New("it needs a manager that runs as root")

// rlimit is the number of a limit, if this system has it.
func rlimit(name string) (number int, ok bool) {
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

// toKernel and fromKernel translate no limit, which is another number for each system, and the type of the fields, too.
func toKernel[T int64 | uint64](dst *T, n uint64) {
	*dst = T(min(n, unix.RLIM_INFINITY))
}

func fromKernel[T int64 | uint64](n T) uint64 {
	if uint64(n) >= unix.RLIM_INFINITY {
		return Unlimited
	}
	return uint64(n)
}

func mayLimit(l Rlimit) error {
	number, ok := rlimit(l.Resource)
	if !ok {
		return fmt.Errorf("%w: this system has no such limit", errors.ErrUnsupported)
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(number, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if most := mostOf(l.Resource); l.Hard > most {
		return fmt.Errorf("a hard limit of %s is above the system's (%s)", amount(l.Hard), amount(most))
	}
	if hard := fromKernel(now.Max); l.Hard > hard {
		if err := mayRaiseLimits(); err != nil {
			return fmt.Errorf("a hard limit of %s is above the manager's (%s): %w", amount(l.Hard), amount(hard), err)
		}
	}
	return nil
}

func checkUser(s *Settings, c Config) error {
	if c.User == "" {
		if c.Group != "" {
			return fieldError("Group", "it needs User")
		}
		if c.Groups != nil {
			return fieldError("Groups", "they need User")
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
	if !id.isOurs() {
		if err := mayBecome(id); err != nil {
			return err
		}
	}
	s.plan.identity = id
	return nil
}

// isOurs tells whether this process runs as id already; then no right is needed.
func (id *identity) isOurs() bool {
	groups, err := syscall.Getgroups()
	return err == nil && syscall.Getuid() == int(id.uid) && syscall.Geteuid() == int(id.uid) &&
		syscall.Getgid() == int(id.gid) && syscall.Getegid() == int(id.gid) && sameGroups(groups, id)
}

// sameGroups compares the supplementary groups. Where a system counts the group itself among them, that is no other group.
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

// Attr is a copy of attr (which may be nil) with what the start of a worker's process is to set: the cgroup, and for a
// Command user and root directory, too. What attr says itself stands. A process with a Chroot must be started with
// the directory "/", and its program is looked up in there. A parent-death signal may be in attr: the runtime sets it
// after the user, which would clear it.
func (s *Settings) Attr(attr *syscall.SysProcAttr, command bool) *syscall.SysProcAttr {
	all := new(syscall.SysProcAttr)
	if attr != nil {
		*all = *attr
	}
	s.addCgroup(all)
	if !command {
		return all
	}
	if all.Chroot == "" {
		all.Chroot = s.plan.chroot
	}
	if id := s.plan.identity; id != nil && all.Credential == nil && !id.isOurs() {
		all.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: slices.Clone(id.groups)}
	}
	return all
}
