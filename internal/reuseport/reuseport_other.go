//go:build !linux

package reuseport

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
)

func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

// Bind fails: SO_REUSEPORT spreads no connections here, or nobody knows how.
func Bind(network, address string, n int) (fds []int, addr net.Addr, err error) {
	return nil, nil, unsupported("one socket for each worker")
}

// Grow fails.
func Grow(network, address string) (fd int, err error) {
	return -1, unsupported("one socket for each worker")
}

// Steer fails.
func Steer(fd int, live []int) error { return unsupported("steering connections") }

// A Listener is never made here.
type Listener struct{}

// NewListener fails, and leaves fd alone: nothing here can have made it.
func NewListener(fd int) (*Listener, error) { return nil, unsupported("one socket for each worker") }

// AwaitListener fails as NewListener does.
func AwaitListener(fd int) (*Listener, error) { return NewListener(fd) }

// Own has nothing to do.
func (*Listener) Own(fd int) error { return unsupported("a socket of its own") }

// Adopt fails.
func (*Listener) Adopt(key, fd int) error { return unsupported("adopting a socket") }

// Drop does nothing.
func (*Listener) Drop(key int) {}

// Accept fails.
func (*Listener) Accept() (net.Conn, error) { return nil, unsupported("accept") }

// Close does nothing.
func (*Listener) Close() error { return nil }

// Addr is no address.
func (*Listener) Addr() net.Addr { return &net.TCPAddr{} }

// SetDeadline fails.
func (*Listener) SetDeadline(time.Time) error { return unsupported("deadlines") }

// SyscallConn fails.
func (*Listener) SyscallConn() (syscall.RawConn, error) { return nil, unsupported("a descriptor") }
