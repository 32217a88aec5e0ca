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

func unsupported(feature string) error {
	return fmt.Errorf("%s on %s: %w", feature, runtime.GOOS, errors.ErrUnsupported)
}

// Bind fails. On other systems SO_REUSEPORT does not spread connections, or
// this is not documented.
func Bind(network, address string, n int, options ...Option) (fds []int, addr net.Addr, err error) {
	return nil, nil, unsupported("a socket for each worker")
}

// Grow returns an error.
func Grow(network, address string, options ...Option) (fd int, err error) {
	return -1, unsupported("a socket for each worker")
}

// Steer returns an error.
func Steer(fd int, live []int) error { return unsupported("steering connections") }

// SteerFlows returns an error.
func SteerFlows(fd, n int, live []int) error { return unsupported("steering datagrams") }

// A Listener cannot be created on this system.
type Listener struct{}

// NewListener returns an error and leaves fd open.
func NewListener(fd int) (*Listener, error) { return nil, unsupported("a socket for each worker") }

// AwaitListener returns an error and leaves fd open.
func AwaitListener(fd int) (*Listener, error) { return NewListener(fd) }

// Own returns an error.
func (*Listener) Own(fd int) error { return unsupported("a socket for each worker") }

// Adopt returns an error.
func (*Listener) Adopt(key, fd int) error { return unsupported("adopting a socket") }

// Drop does nothing.
func (*Listener) Drop(key int) {}

// Accept returns an error.
func (*Listener) Accept() (net.Conn, error) { return nil, unsupported("accept") }

// Close does nothing.
func (*Listener) Close() error { return nil }

// Addr returns the zero address.
func (*Listener) Addr() net.Addr { return &net.TCPAddr{} }

// SetDeadline returns an error.
func (*Listener) SetDeadline(time.Time) error { return unsupported("deadlines") }

// SyscallConn returns an error.
func (*Listener) SyscallConn() (syscall.RawConn, error) {
	return nil, unsupported("access to the descriptor")
}
