// Package reuseport provides a listener with one socket for each slot: a group
// of sockets on one address, over which the kernel spreads the connections.
//
// The manager holds all sockets of a group for its whole lifetime (Bind, Grow).
// A connection that is queued on a socket, or whose handshake has begun there,
// belongs to that socket and dies with it. The worker of each slot inherits the
// socket of its slot.
//
// If a slot has no ready worker, another worker adopts its socket: Assign
// chooses the worker, and Listener.Adopt adds the socket there. The adopter
// serves the connections in the accept queue, and those whose handshakes
// complete later, possibly seconds later. New connections go to slots with a
// ready worker (Steer).
//
// A group of UDP sockets is the same, except that no worker adopts a socket, and
// that the datagrams of a client go to one slot (SteerFlows).
//
// The package works on Linux. On other systems everything except Assign returns
// an error that wraps errors.ErrUnsupported.
package reuseport

import "syscall"

// An Option is called with a socket before it is bound, as the Control function
// of a net.ListenConfig.
type Option = func(network, address string, conn syscall.RawConn) error
