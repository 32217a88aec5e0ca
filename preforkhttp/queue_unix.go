//go:build unix

package preforkhttp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// queued reports whether the accept queue has a connection.
func queued(conn syscall.RawConn) (yes bool) {
	conn.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		yes = err == nil && n > 0
	})
	return yes
}
