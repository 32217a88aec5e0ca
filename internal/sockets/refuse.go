package sockets

import (
	"errors"
	"net"
)

// errAccept means that a program serves in the manager, by mistake: it would take
// connections from the workers, and end with none of their supervision.
var errAccept = errors.New("this is the manager, and its workers accept: serve in the function of Run or StartFunc, or after Start has returned false")

// AllowAccept lets the listeners of this Set accept. It is for a process that is
// its own worker.
func (set *Set) AllowAccept() { set.accepts.Store(true) }

// refuse returns a listener that does not accept, except after AllowAccept. It
// has all other methods of its kind.
func (set *Set) refuse(ln net.Listener) net.Listener {
	switch ln := ln.(type) {
	case *net.TCPListener:
		return &tcpListener{ln, set}
	case *net.UnixListener:
		return &unixListener{ln, set}
	}
	return ln
}

// mayAccept returns the error of an Accept.
func (set *Set) mayAccept(addr net.Addr) error {
	if set.accepts.Load() {
		return nil
	}
	return &net.OpError{Op: "accept", Net: addr.Network(), Addr: addr, Err: errAccept}
}

type tcpListener struct {
	*net.TCPListener
	set *Set
}

func (l *tcpListener) Accept() (net.Conn, error) {
	if err := l.set.mayAccept(l.Addr()); err != nil {
		return nil, err
	}
	return l.TCPListener.Accept()
}

func (l *tcpListener) AcceptTCP() (*net.TCPConn, error) {
	if err := l.set.mayAccept(l.Addr()); err != nil {
		return nil, err
	}
	return l.TCPListener.AcceptTCP()
}

type unixListener struct {
	*net.UnixListener
	set *Set
}

func (l *unixListener) Accept() (net.Conn, error) {
	if err := l.set.mayAccept(l.Addr()); err != nil {
		return nil, err
	}
	return l.UnixListener.Accept()
}

func (l *unixListener) AcceptUnix() (*net.UnixConn, error) {
	if err := l.set.mayAccept(l.Addr()); err != nil {
		return nil, err
	}
	return l.UnixListener.AcceptUnix()
}
