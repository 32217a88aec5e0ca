package process_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	if testprog.CanFilter {
		programs["filtered"] = filtered
	}
}

// refused are system calls that old kernels lack, or that the seccomp filters
// of containers refuse.
var refused = map[string][]uint32{
	"pidfds":       {unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL},
	"memory files": {unix.SYS_MEMFD_CREATE},
	"all": {unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_MEMFD_CREATE, unix.SYS_CLONE3, unix.SYS_CLOSE_RANGE,
		unix.SYS_PIDFD_GETFD, unix.SYS_EPOLL_PWAIT2, unix.SYS_FACCESSAT2, unix.SYS_OPENAT2},
}

// filtered installs a filter that makes calls fail with an errno, and executes
// its program again, which has the filter from its first instruction on. The
// program is a manager with a worker that crashes, is respawned and prints the
// data that it was passed.
func filtered() {
	if what, errno, ok := strings.Cut(os.Args[1], "/"); ok {
		n, _ := strconv.Atoi(errno)
		refuseCalls(refused[what], syscall.Errno(n))
		log.Fatal(syscall.Exec("/proc/self/exe", []string{os.Args[0], "-"}, os.Environ()))
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: -1, MinSpareWorkers: 1, Reaper: true,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
		Reload:      func() ([]byte, error) { return []byte(strings.Repeat("x", 1<<20)), nil },
	})
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		w.SetStatus('R')
		testprog.Print("worker %d of %d, generation %d, has %d bytes", os.Getpid(), w.ManagerPID(), w.Generation(), len(w.Passed()))
		<-ctx.Done()
		return nil
	})
	testprog.Print("ends: %v", err)
}

func refuseCalls(calls []uint32, errno syscall.Errno) {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{{Code: load, K: 0}} // the number of the call
	for _, call := range calls {
		errno := errno
		if call == unix.SYS_CLONE3 {
			// At EPERM the C library starts no thread, whatever the program is.
			errno = syscall.ENOSYS
		}
		filter = append(filter,
			unix.SockFilter{Code: equal, K: call, Jf: 1},
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	testprog.InstallFilter(append(filter, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}))
}

// If the kernel or a filter refuses a call, the library works without it and
// logs that once.
func TestSeccomp(t *testing.T) {
	if !testprog.CanFilter {
		preforktest.Skipf(t, "the seccomp filter of this test is written for amd64 and arm64")
	}
	for what := range refused {
		errnos := []syscall.Errno{syscall.ENOSYS, syscall.EPERM}
		if what != "all" {
			// SELinux and emulators; Go itself needs the usual ones for "all".
			errnos = append(errnos, syscall.EACCES, syscall.EINVAL)
		}
		for _, errno := range errnos {
			t.Run(fmt.Sprintf("%s, %v", what, errno), func(t *testing.T) {
				p := preforktest.Start(t, "filtered", fmt.Sprintf("%s/%d", what, errno))
				workers := p.ExpectN(2, `^worker (\d+) of (\d+), generation 1, has 1048576 bytes$`)
				pid, _ := strconv.Atoi(workers[0][1])
				syscall.Kill(pid, syscall.SIGKILL)
				p.Expect(`^worker \d+ of \d+, generation 1, has`)
				p.Signal(hup)
				p.ExpectN(2, `^worker \d+ of \d+, generation 2, has`)
				output := strings.Join(p.Lines(), "\n")
				for about, line := range map[string]string{"pidfds": "pidfds refused", "memory files": "memory files refused"} {
					want := 0
					if what == about || what == "all" {
						want = 1
					}
					if n := len(regexp.MustCompile(line).FindAllString(output, -1)); n != want {
						t.Errorf("%q is logged %d times, want %d", line, n, want)
					}
				}
				p.Signal(syscall.SIGUSR2)
				p.Expect(`^ends: <nil>$`)
				p.Signal(term)
				p.Expect(`^ends: <nil>$`)
				testprog.ExpectSuccess(t, p)
			})
		}
	}
}
