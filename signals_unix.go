//go:build unix

package prefork

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// untrappable are the signals that a program cannot receive, and why.
var untrappable = map[syscall.Signal]string{
	syscall.SIGKILL: "the kernel does not deliver it",
	syscall.SIGSTOP: "the kernel does not deliver it",
	syscall.SIGURG:  "the Go runtime sends it to itself many times a second",
}

const continueSignal = syscall.SIGCONT

func systemName(sig syscall.Signal) string { return unix.SignalName(sig) }
