//go:build !unix

package preforkhttp

import "syscall"

// queued tells whether a connection waits to be accepted; here nobody can tell.
func queued(syscall.RawConn) bool { return false }
