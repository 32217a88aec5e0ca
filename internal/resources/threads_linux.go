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

// groupIsFirst is for systems that take the first supplementary group for the group.
const groupIsFirst = false

// threads are the threads of this process. Their directory is opened before a chroot hides it.
type threads struct {
	dir *os.File // nil where the plan is only about what all threads have in common
}

func openThreads(p plan) (threads, error) {
	if p.nice == 0 && len(p.cpus) == 0 && p.identity == nil && !p.noNewPrivs {
		return threads{}, nil
	}
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return threads{}, fmt.Errorf("the threads of this process cannot be seen: %w", err)
	}
	return threads{dir}, nil
}

func (t threads) close() {
	if t.dir != nil {
		t.dir.Close() // in a chroot it would be a way out
	}
}

// maxRounds bounds how often the list is read again.
const maxRounds = 1000

// each calls f with the number of every thread until twice in a row f has nothing to change: a thread can come
// after the list was read, with what its creator had then, and one that ends can cut the list short. f says whether it
// changed something; that a thread has gone is no error.
func (t threads) each(f func(tid int) (changed bool, err error)) error {
	quiet := 0
	for range maxRounds {
		if _, err := t.dir.Seek(0, 0); err != nil {
			return err
		}
		list, err := t.dir.Readdirnames(-1)
		if err != nil {
			return err
		}
		quiet++
		for _, name := range list {
			tid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			changed, err := f(tid)
			if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.ENOENT) {
				return err
			}
			if changed {
				quiet = 0
			}
		}
		if quiet == 2 {
			return nil
		}
	}
	return errors.New("new threads come faster than they can be changed")
}

// nice and affinity first make the system call in each thread while no other can be started. With cgo the runtime cannot
// do that (ENOTSUP), and each thread is seen to by its number.
func (t threads) nice(nice int) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(nice))
	if errno != 0 && errno != syscall.ENOTSUP {
		return os.NewSyscallError("setpriority", errno)
	}
	return t.each(func(tid int) (bool, error) {
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

func (t threads) affinity(cpus []int) error {
	var want, got unix.CPUSet
	for _, cpu := range cpus {
		want.Set(cpu)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(want), uintptr(unsafe.Pointer(&want)))
	if errno != 0 && errno != syscall.ENOTSUP {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	err := t.each(func(tid int) (bool, error) {
		if err := unix.SchedGetaffinity(tid, &got); err != nil || got == want {
			return false, os.NewSyscallError("sched_getaffinity", err)
		}
		if err := unix.SchedSetaffinity(tid, &want); err != nil {
			return false, os.NewSyscallError("sched_setaffinity", err)
		}
		// The kernel takes away without a word what the cpuset does not allow.
		if err := unix.SchedGetaffinity(tid, &got); err != nil || got != want {
			return false, notInForce(err, ranges(members(&got)))
		}
		return true, nil
	})
	// The runtime counted the CPUs when the program started. What the program or its environment has chosen stands.
	if err == nil && os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		runtime.SetDefaultGOMAXPROCS()
	}
	return err
}

// noNewPrivs is for all threads, too. The kernel lets a thread do it to itself alone. With cgo the way to all others is a
// filter for system calls, which hands it on when it is given to all threads; this one allows everything.
func (threads) noNewPrivs() error {
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
	// Without SPEC_ALLOW older kernels slow every program down that has a filter.
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("%w; a program that links cgo needs seccomp for this: build it with CGO_ENABLED=0", os.NewSyscallError("seccomp", errno))
	}
	if tid != 0 {
		return fmt.Errorf("thread %d has a filter for system calls of its own, and is not changed", tid)
	}
	return nil
}

// endWithin is how long a thread that is about to end may take for it. The C library changes all threads but those.
const endWithin = time.Second

// verify makes sure of the rights of every thread: one that is still root would be a way back for all.
func (t threads) verify(p plan, wasRoot bool) error {
	if p.identity == nil && !p.noNewPrivs {
		return nil
	}
	last := time.Now().Add(endWithin)
	return t.each(func(tid int) (bool, error) {
		s, err := t.status(tid)
		if err != nil {
			return false, err
		}
		if err := s.verify(p, wasRoot); err == nil || time.Now().After(last) {
			return false, err
		}
		time.Sleep(2 * endWithin / maxRounds)
		return true, nil
	})
}

// status is what /proc says of a thread: the words of each line by its first.
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
		// real, effective, saved, and of the file system
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
			return fmt.Errorf("it is root no more, but capabilities are left (%s %s): securebits keep them", key, got)
		}
	}
	return nil
}
