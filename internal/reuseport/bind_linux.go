package reuseport

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bind creates a group of n sockets on an address and returns the bound address.
// The network is "tcp", "tcp4" or "tcp6" for listening sockets, or "udp", "udp4"
// or "udp6". If the port is 0, the kernel chooses one for the first socket. The
// index in fds is the index in the kernel's group. The descriptors are
// close-on-exec, non-blocking, and owned by the caller.
//
// Bind returns EADDRINUSE if another socket has the address, even with
// SO_REUSEPORT. It is safe for concurrent use, and blocks only to look up a
// host name.
func Bind(network, address string, n int, options ...Option) (fds []int, addr net.Addr, err error) {
	if n < 1 {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", unix.EINVAL)}
	}
	fd, addr, err := bindFirst(network, address, options)
	if err != nil {
		return nil, nil, err
	}
	fds = append(make([]int, 0, n), fd)
	for range max(n, 2) - 1 {
		fd, err := Grow(network, addr.String(), options...)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, nil, err
		}
		fds = append(fds, fd)
	}
	for len(fds) > n {
		// The first socket joins a group only when a second one does,
		// and stays in it after the second is closed. A group of one
		// can be steered too, so that the next socket receives no
		// connection before Steer names it.
		unix.Close(fds[len(fds)-1])
		fds = fds[:len(fds)-1]
	}
	return fds, addr, nil
}

// bindFirst creates the socket that the others join. It binds without
// SO_REUSEPORT, as any server does, and sets the option afterwards.
//
// With SO_REUSEPORT from the beginning, a program that was started twice by
// mistake would not fail with "address already in use": both processes would
// silently share the port, each with half of the connections. Binding once
// without the option, closing, and binding again would leave a moment in which
// two programs that start together both succeed.
func bindFirst(network, address string, options []Option) (fd int, addr net.Addr, err error) {
	return listen(network, address, options, nil, setReusePort)
}

// Grow adds a socket to a group; its index is the previous number of sockets.
// The address must be the one that Bind returned. The kernel lets only sockets
// of one user share an address, so the process must have the same effective
// user as in Bind. If Steer was called, the new socket receives no connection
// until Steer names it, so the caller should call Steer again.
func Grow(network, address string, options ...Option) (fd int, err error) {
	fd, _, err = listen(network, address, options, setReusePort, nil)
	return fd, err
}

func setReusePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// listen creates a socket with package net. It calls the options and before on the
// descriptor before bind, and after once the socket receives; before and after may
// be nil.
func listen(network, address string, options []Option, before, after func(fd int) error) (fd int, addr net.Addr, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // MPTCP sockets cannot be steered
	lc.Control = func(network, address string, conn syscall.RawConn) error {
		for _, option := range options {
			if err := option(network, address, conn); err != nil {
				return err
			}
		}
		if before == nil {
			return nil
		}
		return control(conn, before)
	}
	s, addr, err := open(&lc, network, address)
	if err != nil {
		return -1, nil, err
	}
	defer s.Close() // the duplicate keeps receiving
	conn, err := s.SyscallConn()
	if err == nil && after != nil {
		err = control(conn, after)
	}
	if err == nil {
		err = control(conn, func(raw int) (err error) {
			fd, err = unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, 3)
			return os.NewSyscallError("fcntl", err)
		})
	}
	if err != nil {
		return -1, nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: err}
	}
	return fd, addr, nil
}

// socket is a *net.TCPListener or a *net.UDPConn.
type socket interface {
	syscall.Conn
	io.Closer
}

func open(lc *net.ListenConfig, network, address string) (s socket, addr net.Addr, err error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		ln, err := lc.Listen(context.Background(), network, address)
		if err != nil {
			return nil, nil, err
		}
		return ln.(*net.TCPListener), ln.Addr(), nil
	case "udp", "udp4", "udp6":
		conn, err := lc.ListenPacket(context.Background(), network, address)
		if err != nil {
			return nil, nil, err
		}
		return conn.(*net.UDPConn), conn.LocalAddr(), nil
	}
	return nil, nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
}

func control(conn syscall.RawConn, f func(fd int) error) (err error) {
	if cerr := conn.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
