//go:build !unix

package launch

import "syscall"

// HasChroot reports whether attr gives a process another root directory.
func HasChroot(*syscall.SysProcAttr) bool { return false }
