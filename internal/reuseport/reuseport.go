// Package reuseport is what stands under a listener with one socket for each slot: a group of TCP sockets on one address,
// among which the kernel spreads the connections.
//
// The manager holds all sockets of a group for as long as it lives (Bind, Grow), since a connection that is queued on a
// socket, or whose handshake has begun on it, belongs to that socket alone and dies with it. Each slot's worker inherits
// its own. A socket whose slot has no ready worker is kept by another worker (Keepers says by which one, Listener.Adopt
// takes it), which serves what is queued there and what may still come, seconds later, out of handshakes that were half
// done. New connections go to the slots with a ready worker (Steer).
//
// It works on Linux. Elsewhere everything but Keepers returns an error that wraps errors.ErrUnsupported.
package reuseport
