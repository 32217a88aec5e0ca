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

func systemName(syscall.Signal) string { return "" }
