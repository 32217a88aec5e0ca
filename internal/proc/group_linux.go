package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal (Linux 6.9): the signal goes to the group whose number is
// the pid of the process, and as long as the pidfd is open it reaches no later group that was given the same number. That holds
// when the process was reaped, too: then ESRCH says that nobody is left.
const signalGroup = 1 << 2

// groups is whether the kernel knows signalGroup: it is asked when that is needed for the first time.
type groups struct{ asked, known bool }

func (p *pidfdProcess) knowsGroups() bool {
	g := &p.t.groups
	if !g.asked {
		g.asked, g.known = true, p.sendGroup(0) != unix.EINVAL
	}
	return g.known
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
	if p.knowsGroups() {
		err = os.NewSyscallError("pidfd_send_signal", notGone(p.sendGroup(sig)))
	} else { // it was not reaped, or the handle would be closed
		err = os.NewSyscallError("kill", notGone(unix.Kill(-p.pid, sig)))
	}
	if p.reaped && sig == syscall.SIGKILL {
		closeFd(&p.pidfd)
	}
	return err
}

func (p *pidfdProcess) Rest() bool {
	if !p.group || !p.reaped || p.pidfd < 0 {
		return false
	}
	if p.knowsGroups() {
		p.reapOrphans()
		if p.sendGroup(0) != unix.ESRCH { // nil, or EPERM where they run as another user
			return true
		}
	}
	closeFd(&p.pidfd)
	return false
}

// killRest is for kernels that do not know signalGroup. A process that has ended and was not waited for still has its pid,
// which is the number of no group but its own.
func (p *pidfdProcess) killRest() {
	if !p.group || p.knowsGroups() {
		return
	}
	var info unix.Siginfo
	if err := waitPidfd(p.pidfd, unix.WNOHANG|unix.WNOWAIT, &info, nil); err == nil && info.Signo != 0 {
		unix.Kill(-p.pid, syscall.SIGKILL)
	}
}

// reapOrphans waits for what has ended of the group and is a child of this process, which gets the orphans of its workers
// where it is the first one of a container, or a subreaper. Nobody else would, and until then they would count.
func (p *pidfdProcess) reapOrphans() {
	for {
		var info unix.Siginfo
		if err := waitid(unix.P_PGID, p.pid, unix.WNOHANG|unix.WNOWAIT, &info, nil); err != nil || info.Signo == 0 {
			return
		}
		// The group of that number could be another by now. It is not while this one has somebody in it: of one number there
		// is one group, and the orphan stays in its own until it is waited for.
		if p.sendGroup(0) != nil {
			return
		}
		waitid(unix.P_PID, pidOf(&info), unix.WNOHANG, new(unix.Siginfo), nil)
	}
}

// awaitEnd waits until a child has ended, and leaves it to be waited for. False says that it could not.
func awaitEnd(pid int) bool {
	return waitid(unix.P_PID, pid, unix.WNOWAIT, new(unix.Siginfo), nil) == nil
}
