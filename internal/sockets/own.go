package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/reuseport"
)

// ownSocket is a worker's part of one listener with a socket for each slot.
type ownSocket struct {
	ln      *reuseport.Listener // nil before the program has called ListenPerWorker
	own     int                 // a standby's own socket, if it arrived before that call, else 0
	waiting map[int]int         // by slot: sockets of others that arrived before it
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

// ListenPacket is Listen for datagram sockets.
func (in *Inherited) ListenPacket(network, address string) (net.PacketConn, error) {
	return takeShared(in, network, address, marker.Shared, net.FilePacketConn)
}

func takeShared[T closer](in *Inherited, network, address string, kind int, wrap func(*os.File) (T, error)) (s T, err error) {
	_, got, err := in.take(network, address, withSlot(kind))
	if err != nil {
		return s, err
	}
	if s, err = wrapFD(got.FD, network+" "+address, wrap); err == nil {
		in.remember(s)
	}
	return s, err
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
	for slot, descriptor := range k.waiting {
		ln.Adopt(slot, descriptor)
	}
	k.waiting = nil
	return &ownListener{ln, group, in.closed}, nil
}

// ownListener reports to the manager when it is closed, so that another worker
// serves its accept queue however long this worker lives.
type ownListener struct {
	*reuseport.Listener
	group  int
	closed func(group int)
}

func (l *ownListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		l.closed(l.group)
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
		in.own[group] = &ownSocket{waiting: make(map[int]int)}
	}
	return in.own[group]
}

// Adopt makes this worker accept on one more socket of a group: the socket of
// a slot without a ready worker or, in a standby, its own. A listener that the
// program has closed adopts nothing; the manager learns of that by closed.
func (in *Inherited) Adopt(group, slot, descriptor int, standby bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch k := in.ownOf(group); {
	case descriptor < 0:
	case standby && k.ln != nil:
		if err := k.ln.Own(descriptor); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintf(os.Stderr, "prefork: worker %d exits: cannot listen on the socket of its slot: %v\n", os.Getpid(), err)
			syscall.Exit(1)
		}
	case standby:
		k.own = descriptor
	case k.ln != nil:
		k.ln.Adopt(slot, descriptor)
	default:
		if again, ok := k.waiting[slot]; ok {
			fd.Close(again)
		}
		k.waiting[slot] = descriptor
	}
}

// Drop undoes Adopt.
func (in *Inherited) Drop(group, slot int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.ownOf(group)
	if k.ln != nil {
		k.ln.Drop(slot)
	} else if descriptor, ok := k.waiting[slot]; ok {
		fd.Close(descriptor)
		delete(k.waiting, slot)
	}
}
