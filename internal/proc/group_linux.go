package proc

import (
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal (Linux 6.9).
// It sends to the group whose number is the pid of the process. While the pidfd
// is open, the signal reaches no later group of the same number, even after the
// process was reaped. ESRCH means that the group is empty.
const signalGroup = 1 << 2

// groups caches whether the kernel supports signalGroup.
type groups struct{ checked, supported atomic.Bool }

func (p *pidfdProcess) supportsGroups() bool {
	g := &p.t.groups
	if !g.checked.Load() {
		g.supported.Store(p.sendGroup(0) != unix.EINVAL)
		g.checked.Store(true)
	}
	return g.supported.Load()
}

func (p *pidfdProcess) sendGroup(sig syscall.Signal) error {
	return unix.PidfdSendSignal(p.pidfd, sig, nil, signalGroup)
}

func (p *pidfdProcess) SignalGroup(sig syscall.Signal) error {
	if p.pidfd < 0 {
		return nil
	}
	if !p.group || !p.reaped && !leadsGroup(p.pid) {
		return p.Signal(sig)
	}
	var err error
	if p.supportsGroups() {
		err = os.NewSyscallError("pidfd_send_signal", ignoreGone(p.sendGroup(sig)))
	} else { // not reaped yet, since Reap would have closed the handle
		err = os.NewSyscallError("kill", ignoreGone(unix.Kill(-p.pid, sig)))
	}
	if p.reaped && sig == syscall.SIGKILL {
		closeFd(&p.pidfd)
	}
	return err
}

func (p *pidfdProcess) HasLeftovers() bool { return p.reaped && p.pidfd >= 0 }

func (p *pidfdProcess) ReapLeftovers() {
	if !p.reaped || p.pidfd < 0 {
		return
	}
	if p.group && p.supportsGroups() {
		p.reapOrphans()
		if p.sendGroup(0) != unix.ESRCH { // nil, or EPERM if they run as another user
			return
		}
	}
	closeFd(&p.pidfd)
}

// killGroup kills the group of a leader that has exited, for kernels without
// signalGroup. A process that was not waited for still holds its pid, so no
// other group has that number.
func (p *pidfdProcess) killGroup() {
	if !p.group || p.supportsGroups() {
		return
	}
	var info unix.Siginfo
	if err := waitPidfd(p.pidfd, unix.WNOHANG|unix.WNOWAIT, &info, nil); err == nil && info.Signo != 0 {
		unix.Kill(-p.pid, syscall.SIGKILL)
	}
}

// reapOrphans waits for exited processes of the group that are children of the
// manager. A manager that is the first process of a container, or a subreaper,
// becomes the parent of its workers' orphans. No other code waits for them, and
// until then they count as leftovers.
func (p *pidfdProcess) reapOrphans() {
	for {
		var info unix.Siginfo
		if err := waitid(unix.P_PGID, p.pid, unix.WNOHANG|unix.WNOWAIT, &info, nil); err != nil || info.Signo == 0 {
			return
		}
		// The number could belong to another group by now, but not while this
		// group has a member: a number names one group, and the orphan stays in
		// its own until it is waited for.
		if p.sendGroup(0) != nil {
			return
		}
		waitid(unix.P_PID, pidOf(&info), unix.WNOHANG, new(unix.Siginfo), nil)
	}
}

// AwaitExit waits until a child has exited, and leaves it as a zombie. It
// returns false if it could not wait.
func AwaitExit(pid int) bool {
	return waitid(unix.P_PID, pid, unix.WNOWAIT, new(unix.Siginfo), nil) == nil
}
