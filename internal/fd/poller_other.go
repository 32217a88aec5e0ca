//go:build !linux

package fd

import "syscall"

// Unpoll is a no-op.
func Unpoll([]syscall.RawConn) (restore func()) { return func() {} }
