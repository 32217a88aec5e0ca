package resources

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Surroundings that are not as they should be: programs take them from this variable. A filter for system calls fails some
// with an error, as that of a container, or says that they were done when they were not, as one that pretends to be root
// does. /proc is not mounted. Securebits keep the capabilities of who leaves root.
const aroundVar = "RESOURCES_TEST_AROUND"

// calls are those that a filter is made of. Some have two numbers: one for the runtime, one for the C library.
var calls = map[string][]uint32{
	"capget": {unix.SYS_CAPGET}, "getpriority": {unix.SYS_GETPRIORITY}, "setpriority": {unix.SYS_SETPRIORITY},
	"sched_getaffinity": {unix.SYS_SCHED_GETAFFINITY}, "sched_setaffinity": {unix.SYS_SCHED_SETAFFINITY},
	"rlimit": {unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_PRLIMIT64}, "fstatfs": {unix.SYS_FSTATFS}, "fchdir": {unix.SYS_FCHDIR},
	"chdir": {unix.SYS_CHDIR}, "chroot": {unix.SYS_CHROOT}, "setgroups": {unix.SYS_SETGROUPS}, "prctl": {unix.SYS_PRCTL},
	"seccomp": {unix.SYS_SECCOMP}, "ids": {unix.SYS_SETUID, unix.SYS_SETRESUID, unix.SYS_SETGID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS},
}

// around makes the surroundings of this process: "no proc", "keep capabilities", or "CALL=ERRNO".
func around() {
	what := os.Getenv(aroundVar)
	switch name, n, filter := strings.Cut(what, "="); {
	case what == "":
	case what == "no proc": // in a mount namespace of its own
		must(unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	case what == "keep capabilities":
		runtime.LockOSThread()
		const noFixup, noFixupLocked = 1 << 2, 1 << 3
		must(unix.Prctl(unix.PR_SET_SECUREBITS, noFixup|noFixupLocked, 0, 0, 0))
		must(os.Unsetenv(aroundVar))
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
		// Root may do it without giving up new privileges first.
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
			must(errno)
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("the surroundings cannot be made:", err)
		os.Exit(98)
	}
}

func needFilter(t *testing.T) {
	t.Helper()
	needRoot(t)
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("the seccomp filter of this test is written for amd64 and arm64")
	}
}

// inside is what a program needs to be started with for its surroundings.
func inside(surroundings string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{4, 24}}}
	if surroundings == "no proc" {
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

// A worker that cannot have what it is to have says why and ends, also where it is told that it has it.
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
		around, plan, want string
	}{
		{"setpriority" + pretended, "nice:15", "Nice: 15: set, but "},
		{"setpriority" + refused, "nice:15", "Nice: 15: setpriority: operation not permitted (the worker has less rights"},
		{"getpriority" + refused, "nice:15", "Nice: 15: getpriority: operation not permitted"},
		{"no proc", "nice:15", "the threads of this process cannot be seen: open /proc/self/task: no such file"},
		{"sched_setaffinity" + pretended, cpu, "CPUs: " + itoa(cpus[0]) + ": set, but " + ranges(cpus) + " is in force"},
		{"sched_setaffinity" + refused, cpu, "sched_setaffinity: operation not permitted (the worker has less rights"},
		{"sched_getaffinity" + refused, cpu, "sched_getaffinity: operation not permitted (the worker has less rights"},
		{"rlimit" + pretended, "lim:core:12345:12345", "Rlimits: core to 12345, at most 12345: set, but "},
		{"rlimit" + unknown, "lim:core:12345:12345", "setrlimit: function not implemented"},
		{"", "lim:nofile:3:500|root:/", "Chroot: /: too many open files (the limit nofile is too low for what the worker inherits)"},
		{"fchdir" + denied, "root:/", "Chroot: /: fchdir: permission denied"},
		{"chdir" + denied, "root:/", "Chroot: /: chdir: permission denied"},
		{"chroot" + pretended, "root:/usr", "Chroot: /usr: set, but another directory is the root"},
		{"ids" + pretended, "id:1234:1235:", "User: user 1234, group 1235, supplementary groups []: set, but users 0 and 0, groups 0 and 0, supplementary groups 4 24 are in force"},
		{"setgroups" + pretended, "id:1234:1235:7", "set, but users 1234 and 1234, groups 1235 and 1235, supplementary groups 4 24 are in force"},
		{"keep capabilities", "id:1234:1235:", "it is root no more, but capabilities are left (Cap"},
		{"prctl" + pretended, "nnp:", "NoNewPrivs: set, but not in force"},
		{"prctl" + refused, "nnp:", "NoNewPrivs: prctl: operation not permitted"},
		{nnpCall + unknown, "nnp:", "NoNewPrivs: " + nnpCall + ": function not implemented"},
	} {
		t.Run(tt.around+","+tt.plan, func(t *testing.T) {
			t.Parallel()
			if len(cpus) < 2 && tt.plan == cpu {
				t.Skip("with one CPU there is nothing to change")
			}
			p := start(t, self(t), inside(tt.around), []string{aroundVar + "=" + tt.around}, "apply", tt.plan)
			if line := p.line(); !strings.HasPrefix(line, "error: ") || !strings.Contains(line, tt.want) {
				t.Errorf("%s\nwant %s", line, tt.want)
			}
			io.Copy(io.Discard, p.lines)
			if err := p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// A manager that cannot have for its workers what they are to have does not begin.
func TestCheckRefused(t *testing.T) {
	needFilter(t)
	for _, tt := range []struct {
		around string
		c      Config
		want   string
	}{
		{"capget" + refused, Config{User: "1234", Group: "1234"}, "User: it needs a manager that runs as root, with the capability CAP_SETUID and CAP_SETGID"},
		{"capget" + refused, Config{Chroot: "/"}, "Chroot: it needs a manager that runs as root, with the capability CAP_SYS_CHROOT"},
		{"sched_getaffinity" + refused, Config{CPUsPerWorker: 1}, "CPUs: sched_getaffinity: operation not permitted"},
		{"getpriority" + refused, Config{Nice: 15}, "Nice: 15: getpriority: operation not permitted"},
		{"rlimit" + refused, Config{Nice: 15}, "Nice: 15: getrlimit: operation not permitted"},
		{"rlimit" + refused, Config{Rlimits: []Rlimit{{"core", 1, 1}}}, "Rlimits: core: getrlimit: operation not permitted"},
		{"fstatfs" + refused, Config{Cgroup: "/"}, "Cgroup: /: statfs: operation not permitted"},
		{"seccomp" + unknown, Config{NoNewPrivs: true}, "NoNewPrivs: unsupported operation: a program that links cgo needs seccomp for it (function not implemented)"},
		{"no proc", Config{User: "1234", Group: "1234"}, "User: /proc must be mounted"},
		{"no proc", Config{CPUsPerWorker: 1}, "CPUs: /proc must be mounted"},
		{"no proc", Config{Nice: 15}, "Nice: 15: /proc must be mounted"},
		{"no proc", Config{NoNewPrivs: true}, "NoNewPrivs: /proc must be mounted"},
		{"no proc", Config{Rlimits: []Rlimit{{"core", 1, 1}}, Chroot: "/"}, "ok lim:core:1:1|root:/"}, // these do without
	} {
		text, err := json.Marshal(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(tt.around+string(text), func(t *testing.T) {
			t.Parallel()
			if tt.c.NoNewPrivs && tt.around != "no proc" && !linksCgo() {
				t.Skip("without cgo the kernel's own call is enough")
			}
			if got := start(t, self(t), inside(tt.around), []string{aroundVar + "=" + tt.around}, "check", string(text)).line(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}
