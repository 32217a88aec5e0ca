//go:build unix

package preforktest

import "syscall"

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT
