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

func trappable(sig os.Signal) bool { return sig != syscall.SIGKILL && sig != syscall.SIGSTOP }

func nameOf(sig syscall.Signal) string { return unix.SignalName(sig) }
