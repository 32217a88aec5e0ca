package proc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
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
		t.groups.checked.Store(true)
		return t
	}}
}

func init() { preforktest.Register("leaver", leaverProgram) }

// leaverProgram starts a process that starts another one and exits. It prints
// whether it has leftovers. With an argument, pidfd_send_signal refuses flags,
// as kernels before 6.9 do.
func leaverProgram() {
	if len(os.Args) > 1 {
		const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		execFiltered([]unix.SockFilter{
			{Code: load, K: 0}, // the number of the system call
			{Code: equal, K: unix.SYS_PIDFD_SEND_SIGNAL, Jf: 3},
			{Code: load, K: 16 + 3*8}, // the lower half of its fourth argument
			{Code: equal, K: 0, Jt: 1},
			{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		})
	}
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
}

func TestOldKernel(t *testing.T) {
	needFilter(t)
	adoptOrphans()
	// run returns when no process holds the output: the leftover was killed.
	if out, want := run(t, "leaver", "oldKernel"), "exit code 3 true false <nil>"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	for { // the orphan
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
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
