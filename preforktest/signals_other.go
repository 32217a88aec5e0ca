//go:build !unix

package preforktest

import "syscall"

func restoreIgnoredSignals() {}

const sigStop, sigCont = syscall.Signal(0), syscall.Signal(0)
