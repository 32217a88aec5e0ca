package preforktest

import (
	"os"
	"os/exec"
	"syscall"
)

// asInit starts the command through a shell, which mounts the /proc of the
// namespace and then executes the command.
func (p *Program) asInit() error {
	if _, err := exec.LookPath("mount"); err != nil {
		return err
	}
	const script = `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" "$@"`
	args := append([]string{"sh", "-c", script, p.Cmd.Path}, p.Cmd.Args[1:]...)
	p.Cmd.Path, p.Cmd.Args = "/bin/sh", args
	if p.Cmd.SysProcAttr == nil {
		p.Cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	attr := p.Cmd.SysProcAttr
	attr.Cloneflags |= syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	if uid := os.Geteuid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return nil
}
