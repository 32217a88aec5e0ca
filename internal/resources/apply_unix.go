//go:build unix

package resources

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Apply carries out a plan in the worker, or in the first step of a Command. It
// must be called before the program does its own work. An empty plan is a no-op.
//
// Limits come first and privileges last, because each step may need a
// privilege that a later one drops. Apply verifies each step. It returns a
// *FieldError for the first step that fails, or another error if Settings has
// not produced the text. After an error the process is partly changed and may
// still be root, so it must exit at once.
func Apply(text string) error {
	if text == "" {
		return nil
	}
	p, err := parsePlan(text)
	if err != nil {
		return err
	}
	t, err := openThreads(p)
	if err != nil {
		return err
	}
	defer t.close()
	wasRoot := os.Geteuid() == 0
	for _, step := range []func(plan, threads) error{applyLimits, applyNice, applyUmask, applyCPUs, applyChroot, applyIdentity, applyNoNewPrivs} {
		if err := step(p, t); err != nil {
			return err
		}
	}
	return t.verify(p, wasRoot)
}

func applyLimits(p plan, _ threads) error {
	for _, l := range p.limits {
		if err := setLimit(l); err != nil {
			return fieldError("Rlimits", "%s to %s, at most %s: %w", l.Resource, amount(l.Soft), amount(l.Hard), err)
		}
	}
	return nil
}

func applyNice(p plan, t threads) error {
	if p.nice == 0 {
		return nil
	}
	if err := t.setNice(p.nice); err != nil {
		return fieldError("Nice", "%d: %w", p.nice, explain(err))
	}
	return nil
}

func applyUmask(p plan, _ threads) error {
	if p.umask != nil {
		syscall.Umask(*p.umask) // it cannot fail, and all threads share it
	}
	return nil
}

func applyCPUs(p plan, t threads) error {
	if len(p.cpus) == 0 {
		return nil
	}
	if err := t.setAffinity(p.cpus); err != nil {
		return fieldError("CPUs", "%s: %w", ranges(p.cpus), explain(err))
	}
	return nil
}

func applyChroot(p plan, _ threads) error {
	if p.chroot == "" {
		return nil
	}
	if err := changeRoot(p.chroot); err != nil {
		return fieldError("Chroot", "%s: %w", p.chroot, explain(err))
	}
	return nil
}

func applyIdentity(p plan, _ threads) error {
	if p.identity == nil {
		return nil
	}
	if err := switchUser(p.identity); err != nil {
		return fieldError("User", "%v: %w", *p.identity, explain(err))
	}
	return nil
}

func applyNoNewPrivs(p plan, t threads) error {
	if !p.noNewPrivs {
		return nil
	}
	if err := t.setNoNewPrivs(); err != nil {
		return fieldError("NoNewPrivs", "%w", explain(err))
	}
	return nil
}

// explain adds the most likely reason for which the kernel refused a change
// that Check considered possible.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w (the worker has fewer privileges than the manager: look for a program between them that drops some)", err)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w (the value does not exist in the user namespace or cpuset of the worker)", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w (the limit nofile is too low for the descriptors that the worker inherits)", err)
	}
	return err
}

// setLimit uses package syscall, which tracks the value of nofile that the
// runtime has changed. Without that, os/exec would restore the old value in
// the processes that this one starts.
func setLimit(l Rlimit) error {
	number, ok := RlimitNumber(l.Resource)
	if !ok {
		return errors.ErrUnsupported
	}
	var want, got syscall.Rlimit
	toKernel(&want.Cur, l.Soft)
	toKernel(&want.Max, l.Hard)
	if err := syscall.Setrlimit(number, &want); err != nil {
		return explain(os.NewSyscallError("setrlimit", err))
	}
	if err := syscall.Getrlimit(number, &got); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if got != want {
		return fmt.Errorf("set, but %s and %s are in force", amount(fromKernel(got.Cur)), amount(fromKernel(got.Max)))
	}
	return nil
}

// changeRoot changes to an open directory, so that no other directory can take
// its place under the same name.
func changeRoot(path string) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir) // an open directory is a way out of the chroot
	if err := unix.Fchdir(dir); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	if err := syscall.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	var want, slash, here unix.Stat_t
	if err := errors.Join(unix.Fstat(dir, &want), unix.Stat("/", &slash), unix.Stat(".", &here)); err != nil {
		return err
	}
	if slash.Dev != want.Dev || slash.Ino != want.Ino || here.Dev != want.Dev || here.Ino != want.Ino {
		return errors.New("set, but another directory is the root, or the working directory")
	}
	return nil
}

// switchUser sets the user and the groups of this process. Package syscall sets
// them for all threads, with and without cgo.
func switchUser(id *identity) error {
	if id.isCurrent() {
		return nil
	}
	groups := make([]int, 0, len(id.groups)+1)
	if gidIsFirstGroup {
		groups = append(groups, int(id.gid))
	}
	for _, g := range id.groups {
		groups = append(groups, int(g))
	}
	if err := syscall.Setgroups(groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(int(id.gid)); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(int(id.uid)); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	if !id.isCurrent() {
		groups, _ := syscall.Getgroups()
		return fmt.Errorf("set, but users %d and %d, groups %d and %d, supplementary groups %s are in force", syscall.Getuid(), syscall.Geteuid(),
			syscall.Getgid(), syscall.Getegid(), strings.Trim(fmt.Sprint(groups), "[]"))
	}
	return nil
}
