package sockets

import (
	"fmt"
	"net"
	"sync"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/wire"
)

// ownPacketConn is a worker's datagram socket. It reports to the manager when it
// is closed, so that no more flows go there. In a standby it is closed, and has
// only the address, until the socket of its slot arrives. That happens before
// Start returns.
type ownPacketConn struct {
	*net.UDPConn
	group int
	send  func(wire.Message)

	mu       sync.Mutex
	awaiting bool
}

// listenOwnPacket makes the connection on a worker's own socket in the given
// group. From then on the manager gives it flows: reads cannot be seen, since the
// program may read in other ways than by methods of the connection.
func (in *Inherited) listenOwnPacket(group int, s marker.Socket) (net.PacketConn, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.ownOf(group)
	c := &ownPacketConn{group: group, send: in.send, awaiting: true}
	own, have := s.FD, s.Slot != marker.Awaited
	if !have {
		var err error
		if c.UDPConn, err = udpConn(s.FD); err != nil {
			return nil, err
		}
		c.UDPConn.Close()
		own, k.own = k.own, 0
	}
	if own != 0 {
		if err := c.take(own); err != nil {
			return nil, err
		}
		in.remember(c)
	}
	k.conn = c
	in.send(wire.Accepting{Socket: group})
	return c, nil
}

// take sets the socket. It takes ownership of the descriptor, also if it fails.
// After Close it returns net.ErrClosed.
func (c *ownPacketConn) take(descriptor int) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.awaiting {
		fd.Close(descriptor)
		return net.ErrClosed
	}
	if c.UDPConn, err = udpConn(descriptor); err != nil {
		return err
	}
	c.awaiting = false
	return nil
}

// udpConn makes a connection of a descriptor, of which it takes ownership.
func udpConn(descriptor int) (*net.UDPConn, error) {
	conn, err := wrapFD(descriptor, "udp", net.FilePacketConn)
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("a %s socket instead of a UDP socket", conn.LocalAddr().Network())
	}
	return udp, nil
}

func (c *ownPacketConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.UDPConn.Close(); err != nil && !c.awaiting {
		return err
	}
	c.awaiting = false
	c.send(wire.ListenerClosed{Socket: c.group})
	return nil
}
