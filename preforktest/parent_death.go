//go:build linux || freebsd

package preforktest

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the program when the test binary dies, for
// example by a panic or go test -timeout, which run no cleanup. Processes that
// the program has started must detect that themselves.
func dieWithParent(cmd *exec.Cmd) {
	var attr syscall.SysProcAttr
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr // the caller may use it for other commands
	}
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGKILL
	}
	cmd.SysProcAttr = &attr
}
