//go:build !unix

package watch

import (
	"os"
	"syscall"
)

var trapped = []os.Signal{os.Interrupt, syscall.SIGTERM}

const (
	reopenSignal  = syscall.Signal(-1)
	upgradeSignal = syscall.Signal(-2)
)
