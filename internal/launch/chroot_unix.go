//go:build unix

package launch

import (
	"errors"
	"syscall"
)

// Chroot returns the root directory that attr gives a process; "" for none.
func Chroot(attr *syscall.SysProcAttr) string {
	if attr == nil {
		return ""
	}
	return attr.Chroot
}

// checkFirstStep returns an error for a plan with which this program cannot be
// the first step of a Command.
func (p *Plan) checkFirstStep() error {
	attr := p.Attr
	switch {
	case p.Root != "" && p.Dir != "":
		return errors.New("Dir cannot be combined with ListenFDs and Resources.Chroot: the Command starts in the root directory")
	case attr == nil:
	case attr.Chroot != "":
		return errors.New("Spawn.Attr.Chroot cannot be combined with ListenFDs, which starts this program first: use Resources.Chroot")
	case attr.Credential != nil && p.Confine != "":
		return errors.New("Spawn.Attr.Credential cannot be combined with ListenFDs, and User or Chroot of Resources: use Resources.User")
	}
	return nil
}
