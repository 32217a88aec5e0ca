package proc

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// groupsSupported reports whether the table can signal a group without its
// leader, which depends on the kernel.
func groupsSupported(t Table) bool {
	_, ok := t.(*pidfdTable)
	if !ok {
		return false
	}
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, 0, nil, signalGroup) != unix.EINVAL
}

// oldTables returns a table that behaves as on a Linux from 5.4 to 6.8.
func oldTables() map[string]func(func(Note)) Table {
	return map[string]func(func(Note)) Table{"pidfd before 6.9": func(notify func(Note)) Table {
		t := newTable("pidfd", notify).(*pidfdTable)
		t.groups.checked = true
		return t
	}}
}

// The program oldKernel makes pidfd_send_signal refuse flags, as kernels before
// 6.9 do, and executes the program leaver.
var oldKernelProgram = program("oldKernel", func([]string) {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // the number of the system call
		{Code: equal, K: unix.SYS_PIDFD_SEND_SIGNAL, Jf: 3},
		{Code: load, K: 16 + 3*8}, // the lower half of its fourth argument
		{Code: equal, K: 0, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	check(setFilter(&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
	check(syscall.Exec("/proc/self/exe", []string{"leaver"}, programEnv(leaverProgram)))
})

// The program leaver starts a process that starts another one and exits. It
// prints whether it has leftovers.
var leaverProgram = program("leaver", func([]string) {
	notes := make(chan Note, 10)
	table, err := newPidfdTable(func(n Note) { notes <- n })
	check(err)
	p, err := table.Start(1, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & exit 3"}, Files: []uintptr{0, 1, 2}, Group: true})
	check(err)
	for n := range notes {
		if n.Kind == Exited {
			break
		}
	}
	status, _, ok := p.Reap()
	fmt.Println(status, ok, p.HasLeftovers(), p.SignalGroup(syscall.SIGTERM))
	check(table.Close())
})

func TestOldKernel(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		programs.used[oldKernelProgram], programs.used[leaverProgram] = true, true
		t.Skip("the seccomp filter of this test is written for amd64 and arm64")
	}
	// run returns when no process holds the output: the leftover was killed.
	if out, want := run(t, oldKernelProgram), "exit code 3 true false <nil>\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	for { // the orphan
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
	programs.used[leaverProgram] = true
}

// Leftovers take one descriptor, which is closed with the last of them.
func TestLeftoversKeepOneDescriptor(t *testing.T) {
	o := newOwner(t, "pidfd")
	if !groupsSupported(o.Table) {
		t.Skip("this kernel cannot signal the group of a pidfd")
	}
	before := openFiles()
	b := o.band(nil)
	b.endLead()
	b.in.Close()
	b.expect("member exits")
	b.expect("EOF")
	b.out.Close()
	pidfds := 0
	for _, f := range openFiles() {
		if strings.HasSuffix(f, "[pidfd]") {
			pidfds++
		}
	}
	if n := len(openFiles()); pidfds != 1 || n != len(before)+1 {
		t.Errorf("%d pidfds, %d descriptors, and %d before", pidfds, n, len(before))
	}
	for b.HasLeftovers() {
		runtime.Gosched()
		b.ReapLeftovers()
	}
	if n := len(openFiles()); n != len(before) {
		t.Errorf("%d descriptors at the end, %d before", n, len(before))
	}
}
