//go:build !unix

package sig

import "syscall"

// Continue is the signal that resumes a stopped process, or 0 if the system has
// none.
const Continue = syscall.Signal(0)

// Untrappable returns the reason why a Go program cannot receive a signal, or
// "" if it can.
func Untrappable(sig syscall.Signal) (why string) {
	if sig == syscall.SIGKILL {
		return "the system does not deliver it"
	}
	return ""
}

// names holds the signals that package syscall has on all systems.
var names = map[syscall.Signal]string{
	syscall.SIGINT:  "SIGINT",
	syscall.SIGQUIT: "SIGQUIT",
	syscall.SIGKILL: "SIGKILL",
	syscall.SIGTERM: "SIGTERM",
}

func systemName(sig syscall.Signal) string { return names[sig] }

func systemNumber(name string) syscall.Signal {
	for sig, n := range names {
		if n == name {
			return sig
		}
	}
	return 0
}
