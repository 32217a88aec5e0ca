package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/fd"
)

// Options are the options of a socket. The zero Options have the defaults of
// package net.
type Options struct {
	// Control is called before bind; nil for none.
	Control func(network, address string, conn syscall.RawConn) error

	Backlog  int         // 0 for the system's maximum
	Mode     os.FileMode // of a unix socket's file; 0 for that of the umask
	UID, GID int         // of the file; 0 for those of the process
	File     *os.File    // a bound socket; nil to bind one
	FD       int         // the number of the descriptor in a Command; 0 for any
}

func (set *Set) check(o *Options, network string) error {
	const firstFD = 3 // above the standard streams
	switch {
	case o.FD == 0:
	case !set.cfg.Command:
		return errors.New("FD is for a Command: leave it out for workers of this program, which call Listen")
	case o.FD < firstFD:
		return fmt.Errorf("FD %d is a standard stream, or negative: use a number from %d up", o.FD, firstFD)
	case slices.ContainsFunc(set.all(), func(s *socket) bool { return s.number == o.FD }):
		return fmt.Errorf("FD %d is that of another socket: use another number", o.FD)
	}
	return o.check(network)
}

func (o *Options) check(network string) error {
	isUnix := strings.HasPrefix(network, "unix")
	switch {
	case o.Backlog < 0 || o.UID < 0 || o.GID < 0:
		return errors.New("negative Backlog, UID or GID")
	case o.Backlog > 0 && (strings.HasPrefix(network, "udp") || network == "unixgram"):
		return errors.New("a datagram socket has no backlog: leave out Backlog")
	case !isUnix && (o.Mode != 0 || o.UID != 0 || o.GID != 0):
		return errors.New("only a unix socket has a file: leave out Mode, UID and GID")
	case o.Mode&^os.ModePerm != 0:
		return fmt.Errorf("more than permissions in Mode %v", o.Mode)
	}
	return nil
}

// control is the Control function of a net.ListenConfig. The file of a unix
// socket is made by bind with the mode of the socket and without the bits of the
// umask, so that no other user can connect before chmod.
func (o *Options) control(network, address string, conn syscall.RawConn) (err error) {
	if o.Mode != 0 {
		cerr := conn.Control(func(raw uintptr) { err = fd.Chmod(raw, uint32(o.Mode)) })
		if err = errors.Join(cerr, err); err != nil {
			return err
		}
	}
	if o.Control == nil {
		return nil
	}
	return o.Control(network, address, conn)
}

// listener returns a net.Listen with these options. A Command gets plain TCP: it
// does not expect MPTCP, which does not support all options.
func (set *Set) listener(o *Options) func(network, address string) (net.Listener, error) {
	cfg := net.ListenConfig{Control: o.control}
	if set.cfg.Command {
		cfg.SetMultipathTCP(false)
	}
	return func(network, address string) (net.Listener, error) {
		if o.File != nil {
			return adoptFile(o.File, network, net.FileListener)
		}
		return cfg.Listen(context.Background(), network, address)
	}
}

// packetConn returns a net.ListenPacket with these options.
func packetConn(o *Options) func(network, address string) (net.PacketConn, error) {
	cfg := net.ListenConfig{Control: o.control}
	return func(network, address string) (net.PacketConn, error) {
		if o.File != nil {
			return adoptFile(o.File, network, net.FilePacketConn)
		}
		return cfg.ListenPacket(context.Background(), network, address)
	}
}

// adoptFile returns a socket of the program.
func adoptFile[T closer](f *os.File, network string, wrap func(*os.File) (T, error)) (s T, err error) {
	raw, err := fd.Raw(f)
	if err != nil {
		return s, err
	}
	if bound := activation.Inspect(int(raw)); !bound.Serves(network) {
		return s, fmt.Errorf("the File is %v, and not a %s socket", bound, network)
	}
	return wrap(f) // duplicates the descriptor, close-on-exec
}

// apply sets the options of a socket that is bound.
func (o *Options) apply(sock *socket) error {
	if sock.file != nil {
		if err := sock.file.change(idOr(o.UID), idOr(o.GID), uint32(o.Mode)); err != nil {
			return err
		}
	}
	return o.applyBacklog(sock.fd)
}

func (o *Options) applyBacklog(descriptor int) error {
	if o.Backlog == 0 {
		return nil
	}
	return fd.SetBacklog(descriptor, o.Backlog)
}

// idOr returns the argument of chown for an id.
func idOr(id int) int {
	if id == 0 {
		return -1
	}
	return id
}
