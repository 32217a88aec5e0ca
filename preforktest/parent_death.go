//go:build linux || freebsd

package preforktest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the program when the test binary dies: by go test -timeout, say, or a panic, which run
// no cleanup. What the program has started then has to notice that itself.
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
