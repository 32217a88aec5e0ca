package sockets

import (
	"errors"
	"net"
)

// errAccept means that a program serves in the manager, by mistake: it would take
// connections from the workers, and end with none of their supervision.
var errAccept = errors.New("this is the manager, and its workers accept: serve in the function of Run or StartFunc, or after Start has returned false")

// refuse returns a listener that does not accept. It has all other methods of its
// kind.
func refuse(ln net.Listener) net.Listener {
	switch ln := ln.(type) {
	case *net.TCPListener:
		return &tcpListener{ln}
	case *net.UnixListener:
		return &unixListener{ln}
	}
	return ln
}

func acceptError(addr net.Addr) error {
	return &net.OpError{Op: "accept", Net: addr.Network(), Addr: addr, Err: errAccept}
}

type tcpListener struct{ *net.TCPListener }

func (l *tcpListener) Accept() (net.Conn, error)        { return nil, acceptError(l.Addr()) }
func (l *tcpListener) AcceptTCP() (*net.TCPConn, error) { return nil, acceptError(l.Addr()) }

type unixListener struct{ *net.UnixListener }

func (l *unixListener) Accept() (net.Conn, error)          { return nil, acceptError(l.Addr()) }
func (l *unixListener) AcceptUnix() (*net.UnixConn, error) { return nil, acceptError(l.Addr()) }

// packetAddr is a datagram socket for each worker, in the manager.
type packetAddr struct{ *Idle }

func (c *packetAddr) ReadFrom([]byte) (int, net.Addr, error) {
	return 0, nil, &net.OpError{Op: "read", Net: c.addr.Network(), Source: c.addr, Err: errPacket}
}

func (c *packetAddr) WriteTo([]byte, net.Addr) (int, error) {
	return 0, &net.OpError{Op: "write", Net: c.addr.Network(), Source: c.addr, Err: errPacket}
}

var errPacket = errors.New("this is the manager, and each worker has a socket of its own: use it in the function of Run or StartFunc, or after Start has returned false")
