//go:build unix

package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// leadsGroup tells whether a process is in the process group whose number is its pid. That number is the number of no other
// group while the process was not waited for, but the process may be in a group of others.
func leadsGroup(pid int) bool {
	pgid, err := unix.Getpgid(pid)
	return err == nil && pgid == pid
}

// notGone is err, unless it says that nobody was there.
func notGone(err error) error {
	if err == unix.ESRCH {
		return nil
	}
	return err
}

func (p *portableProcess) SignalGroup(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.pins || !leadsGroup(p.pid) {
		return p.Signal(sig)
	}
	return os.NewSyscallError("kill", notGone(unix.Kill(-p.pid, sig)))
}

// endGroup is called by the goroutine that is about to wait for the process: what is left of its group is killed, as long as the
// number of the group is known to be its own.
func (p *portableProcess) endGroup(ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ended {
		unix.Kill(-p.pid, syscall.SIGKILL)
	}
	p.pins = false
}

func (p *portableProcess) Rest() bool { return false }
