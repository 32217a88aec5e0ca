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

// Apply follows a plan, in the worker, from any goroutine, before the program does anything of its own. Limits come first and
// rights go last, since each step may need what a later one takes away; each is read back. It returns a *FieldError at the first thing
// that cannot be had, or a plain error for a text that no Settings has written. The process is then neither what it was nor
// what it should be, and may still be root: it must end, at once. "" does nothing.
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
	for _, l := range p.limits {
		if err := limit(l); err != nil {
			return fieldError("Rlimits", "%s to %s, at most %s: %w", l.Resource, amount(l.Soft), amount(l.Hard), err)
		}
	}
	if p.nice != 0 {
		if err := t.nice(p.nice); err != nil {
			return fieldError("Nice", "%d: %w", p.nice, explain(err))
		}
	}
	if len(p.cpus) > 0 {
		if err := t.affinity(p.cpus); err != nil {
			return fieldError("CPUs", "%s: %w", ranges(p.cpus), explain(err))
		}
	}
	if p.chroot != "" {
		if err := changeRoot(p.chroot); err != nil {
			return fieldError("Chroot", "%s: %w", p.chroot, explain(err))
		}
	}
	wasRoot := os.Geteuid() == 0
	if p.identity != nil {
		if err := become(p.identity); err != nil {
			return fieldError("User", "%v: %w", *p.identity, explain(err))
		}
	}
	if p.noNewPrivs {
		if err := t.noNewPrivs(); err != nil {
			return fieldError("NoNewPrivs", "%w", explain(err))
		}
	}
	return t.verify(p, wasRoot)
}

// explain says why most likely the kernel refused what the manager thought possible.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w (the worker has less rights than its manager: something between them took them away)", err)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w (the value is not known in the user namespace or cpuset of the worker)", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w (the limit nofile is too low for what the worker inherits)", err)
	}
	return err
}

// limit goes by package syscall, which knows what the runtime has done to nofile, and would undo it in what we start.
func limit(l Rlimit) error {
	number, ok := rlimit(l.Resource)
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

// changeRoot holds the directory while it goes there, so that it is not another under the same name.
func changeRoot(path string) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir) // it would be the way out again
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

// become makes this process run as id. The syscall package does it for all threads, with and without cgo.
func become(id *identity) error {
	if id.isOurs() {
		return nil
	}
	groups := make([]int, 0, len(id.groups)+1)
	if groupIsFirst {
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
	if !id.isOurs() {
		groups, _ := syscall.Getgroups()
		return fmt.Errorf("set, but users %d and %d, groups %d and %d, supplementary groups %s are in force", syscall.Getuid(), syscall.Geteuid(),
			syscall.Getgid(), syscall.Getegid(), strings.Trim(fmt.Sprint(groups), "[]"))
	}
	return nil
}
