//go:build unix

package capture

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/proc"
)

func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills the group of a process that was not waited for yet.
func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }

func awaitExit(pid int) bool { return proc.AwaitExit(pid) }

// unread returns how many bytes are in a pipe.
func unread(r *os.File) int {
	raw, err := fd.Raw(r)
	if err != nil {
		return 0
	}
	n, err := unix.IoctlGetInt(int(raw), fionread)
	if err != nil {
		return 0
	}
	return n
}
