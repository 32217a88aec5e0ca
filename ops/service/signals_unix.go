//go:build unix

package service

import (
	"os"
	"syscall"
)

const (
	termSignal = syscall.SIGTERM
	killSignal = syscall.SIGKILL
)

func canTrap(sig os.Signal) bool { return sig != syscall.SIGKILL && sig != syscall.SIGSTOP }
