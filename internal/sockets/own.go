package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/reuseport"
	"github.com/prefork-go/prefork/internal/wire"
)

// ownSocket is a worker's part of one group with a socket for each slot.
type ownSocket struct {
	ln   *reuseport.Listener // nil before the program has called ListenPerWorker
	conn *ownPacketConn      // nil before the program has called ListenPacketPerWorker
	own  int                 // a standby's own socket, if it arrived before that call, else 0
}

// ListenPerWorker returns the listener on this worker's own socket. If sockets
// for each worker were not available, it returns the shared one.
func (in *Inherited) ListenPerWorker(network, address string) (net.Listener, error) {
	i, s, err := in.take(network, address, perWorker)
	if err != nil {
		return takeShared(in, network, address, marker.FellBack, net.FileListener)
	}
	return in.listenOwn(in.groupOf(i), s)
}

// Listen returns the worker's copy of a shared socket. If the manager has
// inherited a socket for each worker, it returns this worker's own.
func (in *Inherited) Listen(network, address string) (net.Listener, error) {
	ln, err := takeShared(in, network, address, marker.Shared, net.FileListener)
	if errors.Is(err, ErrNotInherited) {
		if i, s, err := in.take(network, address, perWorker); err == nil {
			return in.listenOwn(in.groupOf(i), s)
		}
	}
	return ln, err
}

// ListenPacketPerWorker is ListenPerWorker for datagram sockets.
func (in *Inherited) ListenPacketPerWorker(network, address string) (net.PacketConn, error) {
	i, s, err := in.take(network, address, perWorker)
	if err != nil {
		return takeShared(in, network, address, marker.FellBack, net.FilePacketConn)
	}
	return in.listenOwnPacket(in.groupOf(i), s)
}

// ListenPacket is Listen for datagram sockets.
func (in *Inherited) ListenPacket(network, address string) (net.PacketConn, error) {
	conn, err := takeShared(in, network, address, marker.Shared, net.FilePacketConn)
	if errors.Is(err, ErrNotInherited) {
		if i, s, err := in.take(network, address, perWorker); err == nil {
			return in.listenOwnPacket(in.groupOf(i), s)
		}
	}
	return conn, err
}

func takeShared[T closer](in *Inherited, network, address string, kind int, wrap func(*os.File) (T, error)) (s T, err error) {
	_, got, err := in.take(network, address, withSlot(kind))
	if err != nil {
		return s, err
	}
	if s, err = wrapFD(got.FD, network+" "+address, wrap); err != nil {
		return s, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.remember(s)
	return s, nil
}

// listenOwn makes the listener on a worker's own socket in the given group. A
// standby's socket arrives when it gets its slot, before or after this call.
func (in *Inherited) listenOwn(group int, s marker.Socket) (net.Listener, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k, listen := in.ownOf(group), reuseport.NewListener
	switch {
	case s.Slot != marker.Awaited:
	case k.own == 0:
		listen = reuseport.AwaitListener
	default:
		fd.Close(s.FD)
		s.FD, k.own = k.own, 0
	}
	ln, err := listen(s.FD)
	if err != nil {
		return nil, err
	}
	k.ln = ln
	return &ownListener{Listener: ln, group: group, send: in.send}, nil
}

// ownListener reports to the manager when the program begins to accept, when it
// cannot, and when it has closed the listener.
type ownListener struct {
	*reuseport.Listener
	group int
	send  func(wire.Message)

	accepting sync.Once
	mu        sync.Mutex
	failed    time.Time // of the last AcceptFailed
}

// failurePause is the least time between two reports that Accept fails. A program
// may call it in a loop.
const failurePause = 500 * time.Millisecond

func (l *ownListener) Accept() (net.Conn, error) {
	l.beginAccepting()
	conn, err := l.Listener.Accept()
	if err != nil && isShortage(err) {
		l.reportFailed(time.Now())
	}
	return conn, err
}

// SyscallConn is called by a program that polls before it calls Accept.
func (l *ownListener) SyscallConn() (syscall.RawConn, error) {
	l.beginAccepting()
	return l.Listener.SyscallConn()
}

func (l *ownListener) beginAccepting() {
	l.accepting.Do(func() { l.send(wire.Accepting{Socket: l.group}) })
}

// isShortage reports whether Accept failed for want of descriptors or memory. The
// connection is still in the accept queue.
func isShortage(err error) bool {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, shortage) {
			return true
		}
	}
	return false
}

func (l *ownListener) reportFailed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.failed) >= failurePause {
		l.failed = now
		l.send(wire.AcceptFailed{Socket: l.group})
	}
}

// Close reports to the manager that another worker must serve the accept queue,
// however long this worker lives.
func (l *ownListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		l.send(wire.ListenerClosed{Socket: l.group})
	}
	return err
}

// groupOf returns the index of a socket among those with one for each slot.
func (in *Inherited) groupOf(socket int) (group int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sockets[:socket] {
		if perWorker(s) {
			group++
		}
	}
	return group
}

func (in *Inherited) ownOf(group int) *ownSocket {
	if in.own == nil {
		in.own = make(map[int]*ownSocket)
	}
	if in.own[group] == nil {
		in.own[group] = &ownSocket{}
	}
	return in.own[group]
}

// Adopt makes this worker accept on one more socket of a group: the socket of
// a slot without a ready worker or, in a standby, its own. The descriptor is -1 if
// this process could not receive it. The manager learns of a failure, or it has
// learned that the program has closed the listener.
func (in *Inherited) Adopt(group, slot, descriptor int, standby bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.ownOf(group)
	var err error
	switch {
	case descriptor < 0:
		err = errNotReceived
	case standby && k.ln != nil:
		err = k.ln.Own(descriptor)
	case standby && k.conn != nil:
		if err = k.conn.take(descriptor); err == nil {
			in.remember(k.conn)
		}
	case standby:
		k.own = descriptor
	case k.ln != nil:
		err = k.ln.Adopt(slot, descriptor)
	default: // it does not accept, so no manager sends it a socket
		fd.Close(descriptor)
		err = net.ErrClosed
	}
	switch {
	case err == nil, errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EEXIST):
	case standby:
		fmt.Fprintf(os.Stderr, "prefork: worker %d exits: cannot listen on the socket of its slot: %v\n", os.Getpid(), err)
		syscall.Exit(1)
	default:
		in.send(wire.AdoptFailed{Socket: group, Slot: slot})
	}
}

// errNotReceived means that the kernel did not deliver a descriptor.
var errNotReceived = errors.New("its descriptor did not arrive: the limit of open files is reached, or a security policy refuses to pass descriptors")

// Drop undoes Adopt.
func (in *Inherited) Drop(group, slot int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if k := in.ownOf(group); k.ln != nil {
		k.ln.Drop(slot)
	}
}
