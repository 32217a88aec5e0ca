//go:build unix

package service

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	termSignal = syscall.SIGTERM
	killSignal = syscall.SIGKILL
)

func canTrap(sig os.Signal) bool { return sig != syscall.SIGKILL && sig != syscall.SIGSTOP }

func unixSignalName(sig syscall.Signal) string { return unix.SignalName(sig) }
