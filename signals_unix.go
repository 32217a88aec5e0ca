//go:build unix

package prefork

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// untrappable says why a program cannot receive a signal; "" where it can.
func untrappable(sig syscall.Signal) (why string) {
	switch sig {
	case syscall.SIGKILL, syscall.SIGSTOP:
		return "the kernel does not deliver it"
	case syscall.SIGURG:
		return "the Go runtime sends it to itself many times a second"
	}
	return ""
}

const continueSignal = syscall.SIGCONT

func systemName(sig syscall.Signal) string { return unix.SignalName(sig) }
