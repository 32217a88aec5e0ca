//go:build unix

package sig

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Continue is the signal that resumes a stopped process, or 0 if the system has
// none.
const Continue = syscall.SIGCONT

// Untrappable returns the reason why a Go program cannot receive a signal, or
// "" if it can.
func Untrappable(sig syscall.Signal) (why string) {
	switch sig {
	case syscall.SIGKILL, syscall.SIGSTOP:
		return "the kernel does not deliver it"
	case syscall.SIGURG:
		return "the Go runtime sends it to itself many times a second"
	}
	return ""
}

func systemName(sig syscall.Signal) string { return unix.SignalName(sig) }

func systemNumber(name string) syscall.Signal { return unix.SignalNum(name) }
