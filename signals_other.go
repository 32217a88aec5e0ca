//go:build !unix

package prefork

import "syscall"

var untrappable = map[syscall.Signal]string{syscall.SIGKILL: "the system does not deliver it"}

const continueSignal = syscall.Signal(0)

func systemName(syscall.Signal) string { return "" }
