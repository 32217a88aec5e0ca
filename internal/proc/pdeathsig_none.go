//go:build unix && !linux && !freebsd

package proc

import "syscall"

// These kernels tell no process that its parent has died; it has to watch its control socket.
func dieWithParent(*syscall.SysProcAttr) {}

func followsThread(*syscall.SysProcAttr) bool { return false }
