package resources

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gidIsFirstGroup is true on systems that use the first supplementary group as
// the group.
const gidIsFirstGroup = false

// threads are the threads of this process. Their directory is opened before a
// chroot hides it.
type threads struct {
	dir *os.File // nil if the plan changes only attributes of the process
}

func openThreads(p plan) (threads, error) {
	if p.nice == 0 && len(p.cpus) == 0 && p.identity == nil && !p.noNewPrivs {
		return threads{}, nil
	}
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return threads{}, fmt.Errorf("list threads of this process: %w", err)
	}
	return threads{dir}, nil
}

func (t threads) close() {
	if t.dir != nil {
		t.dir.Close() // an open directory is a way out of a chroot
	}
}

// maxRounds bounds how often the list of threads is read.
const maxRounds = 1000

// forEach calls f for every thread, round after round, until two consecutive
// rounds change nothing. A new thread may appear after the list was read, with
// the old attributes of its creator, and an exiting thread may truncate the
// list.
func (t threads) forEach(f changeFunc) error {
	unchanged := 0
	for range maxRounds {
		changed, err := t.round(f)
		if err != nil {
			return err
		}
		if unchanged++; changed {
			unchanged = 0
		}
		if unchanged == 2 {
			return nil
		}
	}
	return errors.New("new threads appear faster than they can be changed")
}

// A changeFunc changes a thread if necessary, and reports whether it has.
type changeFunc func(tid int) (changed bool, err error)

// round calls f for every thread in the list and reports whether f has changed
// any. A thread that has exited is not an error.
func (t threads) round(f changeFunc) (changed bool, err error) {
	if _, err := t.dir.Seek(0, 0); err != nil {
		return false, err
	}
	list, err := t.dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range list {
		tid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		c, err := f(tid)
		if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.ENOENT) {
			return changed, err
		}
		changed = changed || c
	}
	return changed, nil
}

// setNice and setAffinity first make the system call in every thread while the
// runtime starts no other. With cgo the runtime refuses (ENOTSUP), and each
// thread is changed by its number.
func (t threads) setNice(nice int) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(nice))
	if errno != 0 && errno != syscall.ENOTSUP {
		return os.NewSyscallError("setpriority", errno)
	}
	return t.forEach(func(tid int) (bool, error) {
		if got, err := niceOf(tid); err != nil || got == nice {
			return false, err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil {
			return false, os.NewSyscallError("setpriority", err)
		}
		if got, err := niceOf(tid); err != nil || got != nice {
			return false, notInForce(err, got)
		}
		return true, nil
	})
}

func notInForce(err error, got any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("set, but %v is in force", got)
}

func (t threads) setAffinity(cpus []int) error {
	var want, got unix.CPUSet
	for _, cpu := range cpus {
		want.Set(cpu)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(want), uintptr(unsafe.Pointer(&want)))
	if errno != 0 && errno != syscall.ENOTSUP {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	err := t.forEach(func(tid int) (bool, error) {
		if err := unix.SchedGetaffinity(tid, &got); err != nil || got == want {
			return false, os.NewSyscallError("sched_getaffinity", err)
		}
		if err := unix.SchedSetaffinity(tid, &want); err != nil {
			return false, os.NewSyscallError("sched_setaffinity", err)
		}
		// The kernel silently removes CPUs that the cpuset does not allow.
		if err := unix.SchedGetaffinity(tid, &got); err != nil || got != want {
			return false, notInForce(err, ranges(members(&got)))
		}
		return true, nil
	})
	// The runtime counted the CPUs at startup. A value set by the program
	// or by the environment takes precedence.
	if err == nil && os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		runtime.SetDefaultGOMAXPROCS()
	}
	return err
}

// setNoNewPrivs changes all threads, too. A thread can set the attribute only
// for itself. With cgo, installing a seccomp filter is the only way to reach
// all threads: the kernel sets the attribute on every thread that it
// synchronizes. The filter allows everything.
func (threads) setNoNewPrivs() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errno == syscall.ENOTSUP {
		if err := syncNoNewPrivs(); err != nil {
			return err
		}
	} else if errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

func syncNoNewPrivs() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	filter := unix.SockFprog{Len: 1, Filter: &allow}
	// Without SPEC_ALLOW, older kernels slow down every program with a filter.
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("%w; a program that links cgo requires seccomp: build it with CGO_ENABLED=0", os.NewSyscallError("seccomp", errno))
	}
	if tid != 0 {
		return fmt.Errorf("thread %d has a seccomp filter of its own and was not changed", tid)
	}
	return nil
}

// exitTimeout is the maximum time that an exiting thread may take to disappear.
// The C library changes all threads except exiting ones.
const exitTimeout = time.Second

// verify checks the privileges of every thread. A single thread that is still
// root would let the whole process become root again.
func (t threads) verify(p plan, wasRoot bool) error {
	if p.identity == nil && !p.noNewPrivs {
		return nil
	}
	last := time.Now().Add(exitTimeout)
	return t.forEach(func(tid int) (bool, error) {
		s, err := t.status(tid)
		if err != nil {
			return false, err
		}
		if err := s.verify(p, wasRoot); err == nil || time.Now().After(last) {
			return false, err
		}
		time.Sleep(2 * exitTimeout / maxRounds)
		return true, nil
	})
}

// status is the parsed status file of a thread: the words of each line, by its
// key.
type status map[string][]string

func (t threads) status(tid int) (status, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), strconv.Itoa(tid)+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var text []byte
	for buf := make([]byte, 4096); ; {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return nil, os.NewSyscallError("read", err)
		}
		if n == 0 {
			break
		}
		text = append(text, buf[:n]...)
	}
	s := make(status)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		s[key] = strings.Fields(value)
	}
	return s, nil
}

func (s status) verify(p plan, wasRoot bool) error {
	if id := p.identity; id != nil {
		if err := s.verifyIdentity(id, wasRoot && id.uid != 0); err != nil {
			return fieldError("User", "%v: %w", *id, err)
		}
	}
	if p.noNewPrivs && !slices.Equal(s["NoNewPrivs"], []string{"1"}) {
		return fieldError("NoNewPrivs", "set, but not in force")
	}
	return nil
}

func (s status) verifyIdentity(id *identity, leftRoot bool) error {
	for key, want := range map[string]uint32{"Uid": id.uid, "Gid": id.gid} {
		// real, effective, saved and file system ID
		n := strconv.FormatUint(uint64(want), 10)
		if !slices.Equal(s[key], []string{n, n, n, n}) {
			return fmt.Errorf("set, but %s %s is in force", key, strings.Join(s[key], " "))
		}
	}
	var groups []int
	for _, g := range s["Groups"] {
		n, err := parseID(g)
		if err != nil {
			return err
		}
		groups = append(groups, int(n))
	}
	if !sameGroups(groups, id) {
		return fmt.Errorf("set, but the supplementary groups %s are in force", strings.Join(s["Groups"], " "))
	}
	for _, key := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if got := strings.Join(s[key], ""); leftRoot && strings.Trim(got, "0") != "" {
			return fmt.Errorf("set, but the thread has kept capabilities (%s %s): clear the securebits that keep them", key, got)
		}
	}
	return nil
}
