//go:build unix

package watch

import (
	"os"
	"syscall"
)

var trapped = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGALRM, syscall.SIGUSR1, syscall.SIGUSR2}

const (
	reopenSignal  = syscall.SIGUSR1
	upgradeSignal = syscall.SIGUSR2 // of other servers
)
