package resources

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// has tells whether this process has a capability: root in a container has few.
func has(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

func needs(name string) error {
	return fmt.Errorf("%w, with the capability %s", errNotRoot, name)
}

// allowed are the CPUs that this process may run on.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	return members(&set), nil
}

func members(set *unix.CPUSet) (all []int) {
	for cpu := range maxCPU + 1 {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

func checkCPUs(s *Settings, c Config) error {
	if c.CPUsPerWorker < 0 {
		return fieldError("CPUsPerWorker", "%d is negative; 0 lets every worker run on all CPUs", c.CPUsPerWorker)
	}
	if c.CPUs == nil && c.CPUsPerWorker == 0 {
		return nil
	}
	ours, err := allowed()
	if err != nil {
		return &FieldError{"CPUs", err}
	}
	s.cpus = ours
	if c.CPUs != nil {
		s.cpus = slices.Clone(c.CPUs)
	}
	if len(s.cpus) == 0 {
		return fieldError("CPUs", "the list is empty; nil means all that the manager may run on")
	}
	for i, cpu := range s.cpus {
		if !slices.Contains(ours, cpu) {
			return fieldError("CPUs", "CPU %d is none that the manager may run on (%s)", cpu, ranges(ours))
		}
		if slices.Contains(s.cpus[:i], cpu) {
			return fieldError("CPUs", "CPU %d is given twice", cpu)
		}
	}
	if n := len(s.cpus); c.CPUsPerWorker > n {
		return fieldError("CPUsPerWorker", "%d are more than there are (%d)", c.CPUsPerWorker, n)
	}
	return hasProc("CPUs")
}

// hasProc finds out whether the threads of a process can be seen.
func hasProc(field string) error {
	if _, err := os.Stat("/proc/self/task"); err != nil {
		return fieldError(field, "/proc must be mounted, to see the threads of a worker: %w", err)
	}
	return nil
}

func mayNice(nice int) error {
	now, err := niceOf(0)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if nice < now && 20-nice > int(min(limit.Cur, 40)) && !has(unix.CAP_SYS_NICE) {
		return fmt.Errorf("it is below the manager's (%d): %w", now, needs("CAP_SYS_NICE"))
	}
	if _, err := os.Stat("/proc/self/task"); err != nil {
		return fmt.Errorf("/proc must be mounted, to see the threads of a worker: %w", err)
	}
	return nil
}

// niceOf is the nice value of a thread, 0 for this one. The kernel's answer is 20 less the value, so that none is negative.
func niceOf(tid int) (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	return 20 - n, os.NewSyscallError("getpriority", err)
}

func mayRaiseLimits() error {
	if !has(unix.CAP_SYS_RESOURCE) {
		return needs("CAP_SYS_RESOURCE")
	}
	return nil
}

// mostOf is what not even root can go beyond.
func mostOf(resource string) uint64 {
	if resource == "nofile" {
		text, err := os.ReadFile("/proc/sys/fs/nr_open")
		if n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil {
			return n
		}
	}
	return Unlimited
}

// mayBecome finds out whether a worker can run as id. It takes user 0, and not the capabilities alone: only what leaves it
// loses all capabilities with it.
func mayBecome(id *identity) error {
	if os.Geteuid() != 0 {
		return fieldError("User", "%w, not as user %d", errNotRoot, os.Geteuid())
	}
	if !has(unix.CAP_SETUID) || !has(unix.CAP_SETGID) {
		return fieldError("User", "%w", needs("CAP_SETUID and CAP_SETGID"))
	}
	if err := hasProc("User"); err != nil {
		return err
	}
	// In a user namespace not every number means somebody, and groups may be a thing that one cannot change.
	if text, err := os.ReadFile("/proc/self/setgroups"); err == nil && strings.TrimSpace(string(text)) == "deny" {
		return fieldError("Groups", "this user namespace does not let a process change its groups")
	}
	if !mapped("/proc/self/uid_map", id.uid) {
		return fieldError("User", "user %d does not exist in this user namespace", id.uid)
	}
	if !mapped("/proc/self/gid_map", id.gid) {
		return fieldError("Group", "group %d does not exist in this user namespace", id.gid)
	}
	for _, g := range id.groups {
		if !mapped("/proc/self/gid_map", g) {
			return fieldError("Groups", "group %d does not exist in this user namespace", g)
		}
	}
	return nil
}

// mapped looks a number up in the lines "first, first outside, how many" of a user namespace. A file that is not there
// or cannot be understood is no reason to refuse.
func mapped(file string, id uint32) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		var first, outside, n uint64
		if _, err := fmt.Sscan(line, &first, &outside, &n); err != nil {
			return true
		}
		if uint64(id) >= first && uint64(id)-first < n {
			return true
		}
	}
	return false
}

func mayChroot() error {
	if !has(unix.CAP_SYS_CHROOT) {
		return needs("CAP_SYS_CHROOT")
	}
	return nil
}

func checkNoNewPrivs(_ *Settings, c Config) error {
	if !c.NoNewPrivs {
		return nil
	}
	if linksCgo() {
		allow := uint32(unix.SECCOMP_RET_ALLOW)
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&allow))); errno != 0 {
			return fieldError("NoNewPrivs", "%w: a program that links cgo needs seccomp for it (%w); build it with CGO_ENABLED=0", errors.ErrUnsupported, errno)
		}
	}
	return hasProc("NoNewPrivs")
}

// linksCgo asks for something harmless: with cgo the runtime does not know all threads, and does nothing.
func linksCgo() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return errno == syscall.ENOTSUP
}

// cgroup1Magic is what statfs says of a hierarchy of the first version, which x/sys does not name everywhere.
const cgroup1Magic = 0x27e0eb

func checkCgroup(s *Settings, c Config) error {
	if c.Cgroup == "" {
		return nil
	}
	wrong := func(format string, args ...any) error {
		return fieldError("Cgroup", "%s: %w", c.Cgroup, fmt.Errorf(format, args...))
	}
	fd, err := unix.Open(c.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrong("%w", err)
	}
	dir := os.NewFile(uintptr(fd), c.Cgroup)
	if err := placeable(fd); err != nil {
		dir.Close()
		return wrong("%w", err)
	}
	s.cgroup = dir
	return nil
}

// placeable finds out whether a process can be started in a cgroup.
func placeable(dir int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	switch uint32(fs.Type) {
	case unix.CGROUP2_SUPER_MAGIC:
	case cgroup1Magic:
		return errors.New("it is of the first version of cgroups; a process can only be started in one of the second")
	default:
		return errors.New("it is not a cgroup")
	}
	if err := unix.Faccessat(dir, "cgroup.procs", unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("this process may not put others there: cgroup.procs: %w", err)
	}
	kind, err := readAt(dir, "cgroup.type")
	if err != nil {
		return nil // the root has no type, and takes everybody
	}
	if kind == "domain invalid" {
		return errors.New("its type is domain invalid: below a threaded cgroup it holds no processes until it is threaded, too")
	}
	if controllers, err := readAt(dir, "cgroup.subtree_control"); err == nil && controllers != "" && kind == "domain" {
		return fmt.Errorf("it shares out %s among the cgroups below it, and so can hold no process itself: use one of them", controllers)
	}
	return nil
}

func readAt(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	return strings.TrimSpace(string(buf[:max(n, 0)])), err
}

func (s *Settings) addCgroup(attr *syscall.SysProcAttr) {
	if s.cgroup != nil && !attr.UseCgroupFD {
		attr.UseCgroupFD, attr.CgroupFD = true, int(s.cgroup.Fd())
	}
}
