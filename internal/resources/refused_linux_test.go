package resources

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// restrictionVar tells a program how to restrict itself. A seccomp filter makes
// system calls fail, as in a container, or pretend success, as a program that
// imitates root does. Without /proc, threads are not visible. Securebits keep
// the capabilities of a process that leaves root.
const restrictionVar = "RESOURCES_TEST_RESTRICTION"

// calls names the system calls for a filter. Some need several numbers: one is
// used by the runtime, another by the C library.
var calls = map[string][]uint32{
	"capget": {unix.SYS_CAPGET}, "getpriority": {unix.SYS_GETPRIORITY}, "setpriority": {unix.SYS_SETPRIORITY},
	"sched_getaffinity": {unix.SYS_SCHED_GETAFFINITY}, "sched_setaffinity": {unix.SYS_SCHED_SETAFFINITY},
	"rlimit": {unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_PRLIMIT64}, "fstatfs": {unix.SYS_FSTATFS}, "fchdir": {unix.SYS_FCHDIR},
	"chdir": {unix.SYS_CHDIR}, "chroot": {unix.SYS_CHROOT}, "setgroups": {unix.SYS_SETGROUPS}, "prctl": {unix.SYS_PRCTL},
	"seccomp": {unix.SYS_SECCOMP}, "ids": {unix.SYS_SETUID, unix.SYS_SETRESUID, unix.SYS_SETGID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS},
}

// restrict applies the restriction in restrictionVar to this process: "no
// proc", "keep capabilities", or "CALL=ERRNO".
func restrict() {
	restriction := os.Getenv(restrictionVar)
	switch name, n, filter := strings.Cut(restriction, "="); {
	case restriction == "":
	case restriction == "no proc": // in its own mount namespace
		must(unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	case restriction == "keep capabilities":
		runtime.LockOSThread()
		const noFixup, noFixupLocked = 1 << 2, 1 << 3
		must(unix.Prctl(unix.PR_SET_SECUREBITS, noFixup|noFixupLocked, 0, 0, 0))
		must(os.Unsetenv(restrictionVar))
		must(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	case filter:
		errno, err := strconv.Atoi(n)
		must(err)
		const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		program := []unix.SockFilter{{Code: load, K: 0}} // the number of the call
		for _, call := range calls[name] {
			program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
		}
		program = append(program, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
		prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		// Root may install a filter without setting no-new-privileges first.
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
			must(errno)
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("restrict:", err)
		os.Exit(98)
	}
}

func needFilter(t *testing.T) {
	t.Helper()
	needRoot(t)
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		preforktest.Skipf(t, "the seccomp filter of this test is written for amd64 and arm64")
	}
}

// restricted returns the attributes that a program needs to restrict itself.
func restricted(restriction string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{4, 24}}}
	if restriction == "no proc" {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

const (
	pretended = "=0"
	refused   = "=1"  // EPERM
	denied    = "=13" // EACCES
	unknown   = "=38" // ENOSYS
)

// TestApplyRefused checks that a worker reports the reason and exits if the
// kernel refuses a step of its plan, or falsely reports success.
func TestApplyRefused(t *testing.T) {
	needFilter(t)
	cpus, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	cpu := "cpu:" + itoa(cpus[0])
	nnpCall := "prctl"
	if linksCgo() {
		nnpCall = "seccomp"
	}
	for _, tt := range []struct {
		restriction, plan, want string
	}{
		{"setpriority" + pretended, "nice:15", "Nice: 15: set, but "},
		{"setpriority" + refused, "nice:15", "Nice: 15: setpriority: operation not permitted (the worker has fewer privileges"},
		{"getpriority" + refused, "nice:15", "Nice: 15: getpriority: operation not permitted"},
		{"no proc", "nice:15", "list threads of this process: open /proc/self/task: no such file"},
		{"sched_setaffinity" + pretended, cpu, "CPUs: " + itoa(cpus[0]) + ": set, but " + ranges(cpus) + " is in force"},
		{"sched_setaffinity" + refused, cpu, "sched_setaffinity: operation not permitted (the worker has fewer privileges"},
		{"sched_getaffinity" + refused, cpu, "sched_getaffinity: operation not permitted (the worker has fewer privileges"},
		{"rlimit" + pretended, "lim:core:12345:12345", "Rlimits: core to 12345, at most 12345: set, but "},
		{"rlimit" + unknown, "lim:core:12345:12345", "setrlimit: function not implemented"},
		{"", "lim:nofile:3:500|root:/", "Chroot: /: too many open files (the limit nofile is too low for the descriptors that the worker inherits)"},
		{"fchdir" + denied, "root:/", "Chroot: /: fchdir: permission denied"},
		{"chdir" + denied, "root:/", "Chroot: /: chdir: permission denied"},
		{"chroot" + pretended, "root:/usr", "Chroot: /usr: set, but another directory is the root"},
		{"ids" + pretended, "id:1234:1235:", "User: user 1234, group 1235, supplementary groups []: set, but users 0 and 0, groups 0 and 0, supplementary groups 4 24 are in force"},
		{"setgroups" + pretended, "id:1234:1235:7", "set, but users 1234 and 1234, groups 1235 and 1235, supplementary groups 4 24 are in force"},
		{"keep capabilities", "id:1234:1235:", "set, but the thread has kept capabilities (Cap"},
		{"prctl" + pretended, "nnp:", "NoNewPrivs: set, but not in force"},
		{"prctl" + refused, "nnp:", "NoNewPrivs: prctl: operation not permitted"},
		{nnpCall + unknown, "nnp:", "NoNewPrivs: " + nnpCall + ": function not implemented"},
	} {
		t.Run(tt.restriction+","+tt.plan, func(t *testing.T) {
			t.Parallel()
			if len(cpus) < 2 && tt.plan == cpu {
				t.Skip("requires two CPUs")
			}
			p := start(t, self(t), restricted(tt.restriction), []string{restrictionVar + "=" + tt.restriction}, "apply", tt.plan)
			if line := p.NextLine(); !strings.HasPrefix(line, "error: ") || !strings.Contains(line, tt.want) {
				t.Errorf("%s\nwant %s", line, tt.want)
			}
			if state := p.Wait(); state.ExitCode() != 1 {
				t.Errorf("exit: %v, want code 1", state)
			}
		})
	}
}

// TestCheckRefused checks that Check reports an error if the kernel refuses a
// setting of the workers in the manager.
func TestCheckRefused(t *testing.T) {
	needFilter(t)
	for _, tt := range []struct {
		restriction string
		c           Config
		want        string
	}{
		{"capget" + refused, Config{User: "1234", Group: "1234"}, "User: the manager must run as root, with CAP_SETUID and CAP_SETGID"},
		{"capget" + refused, Config{Chroot: "/"}, "Chroot: the manager must run as root, with CAP_SYS_CHROOT"},
		{"sched_getaffinity" + refused, Config{CPUsPerWorker: 1}, "CPUs: sched_getaffinity: operation not permitted"},
		{"getpriority" + refused, Config{Nice: 15}, "Nice: 15: getpriority: operation not permitted"},
		{"rlimit" + refused, Config{Nice: 15}, "Nice: 15: getrlimit: operation not permitted"},
		{"rlimit" + refused, Config{Rlimits: []Rlimit{{"core", 1, 1}}}, "Rlimits: core: getrlimit: operation not permitted"},
		{"fstatfs" + refused, Config{Cgroup: "/"}, "Cgroup: /: statfs: operation not permitted"},
		{"seccomp" + unknown, Config{NoNewPrivs: true}, "NoNewPrivs: unsupported operation: a program that links cgo requires seccomp (function not implemented)"},
		{"no proc", Config{User: "1234", Group: "1234"}, "User: /proc must be mounted"},
		{"no proc", Config{CPUsPerWorker: 1}, "CPUs: /proc must be mounted"},
		{"no proc", Config{Nice: 15}, "Nice: 15: /proc must be mounted"},
		{"no proc", Config{NoNewPrivs: true}, "NoNewPrivs: /proc must be mounted"},
		{"no proc", Config{Rlimits: []Rlimit{{"core", 1, 1}}, Chroot: "/"}, "ok lim:core:1:1|root:/"},
	} {
		text, err := json.Marshal(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(tt.restriction+string(text), func(t *testing.T) {
			t.Parallel()
			if tt.c.NoNewPrivs && tt.restriction != "no proc" && !linksCgo() {
				t.Skip("without cgo, prctl is enough")
			}
			if got := start(t, self(t), restricted(tt.restriction), []string{restrictionVar + "=" + tt.restriction}, "check", string(text)).NextLine(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}
