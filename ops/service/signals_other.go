//go:build !unix

package service

import (
	"os"
	"syscall"
)

const (
	termSignal = syscall.SIGTERM
	killSignal = syscall.SIGKILL
)

func trappable(sig os.Signal) bool { return sig != syscall.SIGKILL }

func nameOf(syscall.Signal) string { return "" }
