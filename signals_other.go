//go:build !unix

package prefork

import "syscall"

func untrappable(sig syscall.Signal) (why string) {
	if sig == syscall.SIGKILL {
		return "the system does not deliver it"
	}
	return ""
}

const continueSignal = syscall.Signal(0)

func systemName(syscall.Signal) string { return "" }
