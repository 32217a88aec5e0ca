package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Idle stands for a socket of another Manager of the program, in a worker: no
// connection and no datagram ever arrives on it. It is a net.Listener and a
// net.PacketConn.
type Idle struct {
	addr   net.Addr
	closed chan struct{}
	once   sync.Once
}

// NewIdle returns an Idle whose address is the requested one, in the type that
// programs expect for the network.
func NewIdle(network, address string) *Idle {
	s := &Idle{addr: &net.UnixAddr{Net: network, Name: address}, closed: make(chan struct{})}
	host, port, _ := net.SplitHostPort(address)
	ip, _ := netip.ParseAddr(host)
	n, _ := strconv.Atoi(port)
	switch network[:3] {
	case "tcp":
		s.addr = &net.TCPAddr{IP: ip.AsSlice(), Port: n, Zone: ip.Zone()}
	case "udp":
		s.addr = &net.UDPAddr{IP: ip.AsSlice(), Port: n, Zone: ip.Zone()}
	}
	return s
}

// Addr returns the requested address.
func (s *Idle) Addr() net.Addr { return s.addr }

// LocalAddr returns the requested address.
func (s *Idle) LocalAddr() net.Addr { return s.addr }

// Accept blocks until Close.
func (s *Idle) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

// ReadFrom blocks until Close.
func (s *Idle) ReadFrom([]byte) (int, net.Addr, error) {
	<-s.closed
	return 0, nil, net.ErrClosed
}

// WriteTo always fails.
func (s *Idle) WriteTo([]byte, net.Addr) (int, error) {
	return 0, fmt.Errorf("the socket belongs to another Manager of the program: %w", net.ErrClosed)
}

// Close unblocks Accept and ReadFrom. Closing it again is a no-op.
func (s *Idle) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// SetDeadline is a no-op, as are SetReadDeadline and SetWriteDeadline.
func (s *Idle) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is a no-op.
func (s *Idle) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is a no-op.
func (s *Idle) SetWriteDeadline(time.Time) error { return nil }
