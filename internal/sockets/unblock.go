package sockets

import (
	"slices"
	"syscall"

	"github.com/prefork-go/prefork/internal/fd"
)

// remember keeps the socket of s for Unblock. The caller must hold mu.
func (in *Inherited) remember(s any) {
	if c, ok := s.(syscall.Conn); ok {
		if conn, err := c.SyscallConn(); err == nil {
			in.shared = append(in.shared, conn)
		}
	}
}

// Unpoll keeps clients from waking a parked standby, until restore is called.
func (in *Inherited) Unpoll() (restore func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.shared == nil {
		return func() {}
	}
	return fd.Unpoll(slices.Clone(in.shared))
}

// Unblock makes the shared sockets that the program has not closed non-blocking
// again, and reports whether there are any. The mode belongs to the socket, not
// to a process: File and Fd of a listener in one worker change it for all. Then
// neither a deadline nor Close ends an Accept.
func (in *Inherited) Unblock() (open bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, conn := range in.shared {
		err := conn.Control(func(descriptor uintptr) { fd.SetBlocking(int(descriptor), false) })
		open = open || err == nil
	}
	return open
}
