package reuseport

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bind makes a group of n listening sockets on an address of the network "tcp", "tcp4" or "tcp6", and says which address
// that is: where the port is 0, the first socket picks it. The index in fds is the index in the kernel's group. The
// descriptors are close-on-exec and non-blocking and belong to the caller. Manager, any goroutine; it may look up a host
// name.
//
// Nobody else may listen on the address, not even with SO_REUSEPORT: then the error is EADDRINUSE.
func Bind(network, address string, n int) (fds []int, addr net.Addr, err error) {
	if n < 1 {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", unix.EINVAL)}
	}
	fd, addr, err := bindFirst(network, address)
	if err != nil {
		return nil, nil, err
	}
	fds = append(make([]int, 0, n), fd)
	for range max(n, 2) - 1 {
		fd, err := Grow(network, addr.String())
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, nil, err
		}
		fds = append(fds, fd)
	}
	for len(fds) > n {
		// The first socket is in no group until another joins it, and stays in it when that is gone. A group of one can
		// be steered, too, so that the next socket gets nothing before it is named.
		unix.Close(fds[len(fds)-1])
		fds = fds[:len(fds)-1]
	}
	return fds, addr, nil
}

// bindFirst makes the socket that the others join. It takes the address for itself, as any server does, and only then
// lets others in. With SO_REUSEPORT from the beginning, a program that was started twice by mistake would not be told
// "address already in use": the two would silently share the port, each with its own half of the connections. To bind
// once without, close, and bind again would leave a moment in which two that start together both pass.
func bindFirst(network, address string) (fd int, addr net.Addr, err error) {
	return listen(network, address, nil, share)
}

// Grow adds one socket to a group: its index is the number of sockets there were. The address is the one that Bind
// returned. The kernel lets only sockets of one user share an address: the process must have the effective user that it
// had in Bind. The new one gets no connection until Steer names it, if Steer was called.
func Grow(network, address string) (fd int, err error) {
	fd, _, err = listen(network, address, share, nil)
	return fd, err
}

func share(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// listen makes a listening socket as package net does, and calls a function before it is bound and one when it listens;
// either may be nil.
func listen(network, address string, before, after func(fd int) error) (fd int, addr net.Addr, err error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return -1, nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its sockets cannot be steered
	if before != nil {
		lc.Control = func(_, _ string, conn syscall.RawConn) error { return control(conn, before) }
	}
	ln, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return -1, nil, err
	}
	defer ln.Close() // the duplicate goes on listening
	conn, err := ln.(*net.TCPListener).SyscallConn()
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
		return -1, nil, &net.OpError{Op: "listen", Net: network, Addr: ln.Addr(), Err: err}
	}
	return fd, ln.Addr(), nil
}

func control(conn syscall.RawConn, f func(fd int) error) (err error) {
	if cerr := conn.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
