package sockets

import (
	"errors"
	"net"
	"os"
	"reflect"

	"github.com/prefork-go/prefork/internal/fd"
)

// ListenLocal is Listen for a worker that is the process of the manager. The
// worker closes its listener, as workers do, and reopen makes it usable for the
// next one: main has called Listen once. The listener has the type that it has in
// a worker process. The manager must not use it.
func (set *Set) ListenLocal(o Options, network, address string) (ln net.Listener, reopen func() error, err error) {
	return local(set, o, network, address, set.ListenWith, net.FileListener)
}

// ListenPacketLocal is ListenLocal for datagram sockets.
func (set *Set) ListenPacketLocal(o Options, network, address string) (conn net.PacketConn, reopen func() error, err error) {
	return local(set, o, network, address, set.ListenPacketWith, net.FilePacketConn)
}

func local[T closer](set *Set, o Options, network, address string, listen func(o Options, network, address string) (T, error), wrap func(*os.File) (T, error)) (s T, reopen func() error, err error) {
	bound, err := listen(o, network, address)
	if err != nil {
		return s, nil, err
	}
	bound.Close() // the Set has a duplicate
	all := set.all()
	open := func() (T, error) {
		again, err := fd.Duplicate(uintptr(all[len(all)-1].fd))
		if err != nil {
			var none T
			return none, err
		}
		return wrapFD(again, network+" "+address, wrap)
	}
	if s, err = open(); err != nil {
		return s, nil, err
	}
	return s, func() error {
		again, err := open()
		if err != nil {
			return err
		}
		s.Close() // if the worker has not done so
		if to := reflect.ValueOf(s); to.Kind() != reflect.Pointer || to.Type() != reflect.TypeOf(again) {
			again.Close()
			return errors.ErrUnsupported
		}
		reflect.ValueOf(s).Elem().Set(reflect.ValueOf(again).Elem())
		return nil
	}, nil
}
