//go:build !unix

package sig

import "syscall"

// Continue resumes a stopped process; 0 if the system has no such signal.
const Continue = syscall.Signal(0)

// Untrappable returns the reason why a program cannot receive a signal; "" if it
// can.
func Untrappable(sig syscall.Signal) (why string) {
	if sig == syscall.SIGKILL {
		return "the system does not deliver it"
	}
	return ""
}

func systemName(syscall.Signal) string { return "" }
