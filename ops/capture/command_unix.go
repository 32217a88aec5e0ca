//go:build unix

package capture

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
)

func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills the process and its group, unless it was waited for: the number
// could then be another's.
func killGroup(p *os.Process) {
	if p.Signal(syscall.Signal(0)) == nil {
		syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
}

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
