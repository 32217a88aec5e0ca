package resources

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hasCapability reports whether this process has a capability. Root in a
// container has few.
func hasCapability(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

func errCapability(name string) error {
	return fmt.Errorf("%w, with %s", errNotRoot, name)
}

// allowed returns the CPUs that this process may run on.
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
		return fieldError("CPUsPerWorker", "%d is negative; zero means all CPUs", c.CPUsPerWorker)
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
		return fieldError("CPUs", "the list is empty; nil means all CPUs that the manager may run on")
	}
	for i, cpu := range s.cpus {
		if !slices.Contains(ours, cpu) {
			return fieldError("CPUs", "CPU %d is not one that the manager may run on (%s)", cpu, ranges(ours))
		}
		if slices.Contains(s.cpus[:i], cpu) {
			return fieldError("CPUs", "CPU %d is given twice", cpu)
		}
	}
	if n := len(s.cpus); c.CPUsPerWorker > n {
		return fieldError("CPUsPerWorker", "%d is more than the number of CPUs (%d)", c.CPUsPerWorker, n)
	}
	return checkProc("CPUs")
}

// checkProc checks that the threads of a process are visible.
func checkProc(field string) error {
	if _, err := os.Stat("/proc/self/task"); err != nil {
		return fieldError(field, "/proc must be mounted to find the threads of a worker: %w", err)
	}
	return nil
}

func checkMayNice(nice int) error {
	now, err := niceOf(0)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if nice < now && 20-nice > int(min(limit.Cur, 40)) && !hasCapability(unix.CAP_SYS_NICE) {
		return fmt.Errorf("the value is below the manager's (%d): %w", now, errCapability("CAP_SYS_NICE"))
	}
	if _, err := os.Stat("/proc/self/task"); err != nil {
		return fmt.Errorf("/proc must be mounted to find the threads of a worker: %w", err)
	}
	return nil
}

// niceOf returns the nice value of a thread; zero means the calling thread. The
// system call returns 20 minus the value, so that no result is negative.
func niceOf(tid int) (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	return 20 - n, os.NewSyscallError("getpriority", err)
}

func checkMayRaiseLimits() error {
	if !hasCapability(unix.CAP_SYS_RESOURCE) {
		return errCapability("CAP_SYS_RESOURCE")
	}
	return nil
}

// maxLimit returns the hard limit that not even root can exceed.
func maxLimit(resource string) uint64 {
	if resource == "nofile" {
		text, err := os.ReadFile("/proc/sys/fs/nr_open")
		if n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil {
			return n
		}
	}
	return Unlimited
}

// checkMayBecome checks that a worker can switch to id. It requires user 0 in
// addition to the capabilities: a process loses all capabilities only when it
// leaves user 0.
func checkMayBecome(id *identity) error {
	if os.Geteuid() != 0 {
		return fieldError("User", "%w, not as user %d", errNotRoot, os.Geteuid())
	}
	if !hasCapability(unix.CAP_SETUID) || !hasCapability(unix.CAP_SETGID) {
		return fieldError("User", "%w", errCapability("CAP_SETUID and CAP_SETGID"))
	}
	if err := checkProc("User"); err != nil {
		return err
	}
	// In a user namespace, some numbers do not exist, and changing the
	// supplementary groups may be forbidden.
	if text, err := os.ReadFile("/proc/self/setgroups"); err == nil && strings.TrimSpace(string(text)) == "deny" {
		return fieldError("Groups", "this user namespace does not allow a process to change its groups")
	}
	if !mappedIn("/proc/self/uid_map")(id.uid) {
		return fieldError("User", "user %d does not exist in this user namespace", id.uid)
	}
	mapped := mappedIn("/proc/self/gid_map")
	if !mapped(id.gid) {
		return fieldError("Group", "group %d does not exist in this user namespace", id.gid)
	}
	for _, g := range id.groups {
		if !mapped(g) {
			return fieldError("Groups", "group %d does not exist in this user namespace", g)
		}
	}
	return nil
}

// mappedIn returns a function that reports whether an id lies in a range of a
// uid_map or gid_map, whose lines are "first, first outside, count". If the file
// is missing or malformed, it assumes so.
func mappedIn(file string) func(id uint32) bool {
	type span struct{ first, n uint64 }
	var spans []span
	text, err := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		var s span
		var outside uint64
		if _, serr := fmt.Sscan(line, &s.first, &outside, &s.n); serr != nil {
			err = serr
		}
		spans = append(spans, s)
	}
	return func(id uint32) bool {
		return err != nil || slices.ContainsFunc(spans, func(s span) bool { return uint64(id) >= s.first && uint64(id)-s.first < s.n })
	}
}

func checkMayChroot() error {
	if !hasCapability(unix.CAP_SYS_CHROOT) {
		return errCapability("CAP_SYS_CHROOT")
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
			return fieldError("NoNewPrivs", "%w: a program that links cgo requires seccomp (%w): build it with CGO_ENABLED=0", errors.ErrUnsupported, errno)
		}
	}
	return checkProc("NoNewPrivs")
}

// linksCgo reports whether the program links cgo. It tries a harmless system
// call: with cgo the runtime does not know all threads and refuses.
func linksCgo() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return errno == syscall.ENOTSUP
}

// cgroup1Magic is the type that statfs reports for cgroup version 1. Package
// unix does not define it on all architectures.
const cgroup1Magic = 0x27e0eb

func checkCgroup(s *Settings, c Config) error {
	if c.Cgroup == "" {
		return nil
	}
	path, err := filepath.Abs(c.Cgroup) // the program may change its directory
	if err != nil {
		return fieldError("Cgroup", "%s: %w", c.Cgroup, err)
	}
	s.cgroup, err = openCgroup(path)
	return err
}

func openCgroup(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fieldError("Cgroup", "%s: %w", path, err)
	}
	if err := checkCgroupDir(fd); err != nil {
		unix.Close(fd)
		return nil, fieldError("Cgroup", "%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// reopenCgroup opens the cgroup again if another one has its path: whoever
// manages cgroups has removed it while no worker ran, and made it again.
func (s *Settings) reopenCgroup() error {
	fd, path := int(s.cgroup.Fd()), s.cgroup.Name()
	var ours, there unix.Stat_t
	if err := unix.Fstat(fd, &ours); err != nil {
		return fieldError("Cgroup", "%s: %w", path, err)
	}
	switch err := unix.Stat(path, &there); {
	case err == nil && ours.Dev == there.Dev && ours.Ino == there.Ino:
		return nil
	case err == nil:
		dir, err := openCgroup(path)
		if err == nil {
			s.cgroup.Close()
			s.cgroup = dir
		}
		return err
	}
	// The path may be hidden by a mount, which does not matter.
	if err := unix.Faccessat(fd, "cgroup.procs", unix.F_OK, 0); err != nil {
		return fieldError("Cgroup", "%s was removed: make it again", path)
	}
	return nil
}

// checkCgroupDir checks that a process can be started in a cgroup.
func checkCgroupDir(dir int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	switch uint32(fs.Type) {
	case unix.CGROUP2_SUPER_MAGIC:
	case cgroup1Magic:
		return errors.New("this is a cgroup of version 1; a process can only be started in one of version 2")
	default:
		return errors.New("not a cgroup")
	}
	if err := unix.Faccessat(dir, "cgroup.procs", unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("this process may not start others there: cgroup.procs: %w", err)
	}
	kind, err := readAt(dir, "cgroup.type")
	if err != nil {
		return nil // the root cgroup has no type and accepts all processes
	}
	if kind == "domain invalid" {
		return errors.New("the type is domain invalid: a cgroup below a threaded one accepts no processes until it is threaded, too")
	}
	if controllers, err := readAt(dir, "cgroup.subtree_control"); err == nil && controllers != "" && kind == "domain" {
		return fmt.Errorf("it distributes %s to the cgroups below it, so it accepts no processes: use a cgroup below it", controllers)
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

func (s *Settings) addCgroup(attr *syscall.SysProcAttr) error {
	if s.cgroup == nil || attr.UseCgroupFD {
		return nil
	}
	if err := s.reopenCgroup(); err != nil {
		return err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(s.cgroup.Fd())
	return nil
}
