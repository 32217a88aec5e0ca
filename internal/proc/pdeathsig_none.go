//go:build unix && !linux && !freebsd

package proc

import "syscall"

// dieWithParent does nothing: these kernels do not signal a process when its
// parent dies. The process must watch its control socket instead.
func dieWithParent(*syscall.SysProcAttr) {}

func followsThread(*syscall.SysProcAttr) bool { return false }
