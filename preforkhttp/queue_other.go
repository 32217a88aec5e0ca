//go:build !unix

package preforkhttp

import "syscall"

// queued reports whether the accept queue has a connection. This system cannot
// tell.
func queued(syscall.RawConn) bool { return false }
