//go:build unix

package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// leadsGroup reports whether a process is in the process group whose number is
// its pid. No other group has that number until the process is waited for, but
// the process may have moved to another group.
func leadsGroup(pid int) bool {
	pgid, err := unix.Getpgid(pid)
	return err == nil && pgid == pid
}

// SignalOwnGroup sends sig to the process group of this process, which gets it
// too, if this process leads it.
func SignalOwnGroup(sig syscall.Signal) {
	if pid := os.Getpid(); leadsGroup(pid) {
		unix.Kill(-pid, sig)
	}
}

// ignoreGone returns nil for ESRCH, and otherwise err.
func ignoreGone(err error) error {
	if err == unix.ESRCH {
		return nil
	}
	return err
}

func (p *portableProcess) SignalGroup(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holdsPid || !leadsGroup(p.pid) {
		return p.Signal(sig)
	}
	return os.NewSyscallError("kill", ignoreGone(unix.Kill(-p.pid, sig)))
}

// killGroup is called by the goroutine that is about to wait for the process.
// If the process is known to have exited, the number of its group is still its
// own, and killGroup kills the group.
func (p *portableProcess) killGroup(exited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if exited {
		unix.Kill(-p.pid, syscall.SIGKILL)
	}
	p.holdsPid = false
}

// HasLeftovers is always false: wait kills the group before it collects the
// status of the leader.
func (p *portableProcess) HasLeftovers() bool { return false }

func (p *portableProcess) ReapLeftovers() {}
