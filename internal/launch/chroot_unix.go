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
	case attr == nil:
	case attr.Chroot != "":
		return errors.New("Spawn.Attr.Chroot cannot be combined with ListenFDs, nor with Resources that need a first start of this program: use Resources.Chroot")
	case attr.Credential != nil && p.Confine != "":
		return errors.New("Spawn.Attr.Credential cannot be combined with Resources that a first start of this program sets: use Resources.User")
	}
	return nil
}
