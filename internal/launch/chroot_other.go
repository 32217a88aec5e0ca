//go:build !unix

package launch

import "syscall"

// Chroot returns the root directory that attr gives a process; "" for none.
func Chroot(*syscall.SysProcAttr) string { return "" }

func (*Plan) checkFirstStep() error { return nil }
