package sockets

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A Command gets plain TCP: Go's own listeners are MPTCP where the kernel has it.
func TestCommandGetsPlainTCP(t *testing.T) {
	set := newSet(t, Config{Command: true})
	listen(t, set.Listen, "tcp", "127.0.0.1:0")
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	for _, port := range set.HandCommand() {
		if got, err := unix.GetsockoptInt(port.FD, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP || err != nil {
			t.Errorf("protocol %d, %v; want TCP", got, err)
		}
	}
}
