package prefork

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/prefork-go/prefork/internal/inherit"
)

// Listen gives a listening socket, bound once in the manager, and the same one in every worker that is spawned from then
// on: one call before Start does both. The network is "tcp", "tcp4", "tcp6" or "unix" ("@name" is an abstract address, on
// Linux). Several equal calls give several sockets, in the order of the calls.
//
// A program that was started by start_server (Server::Starter) or by systemd with sockets gets those that it was handed:
// the one whose address fits. Port 0 fits any port; no host fits any host, best one that is all of them; a unix socket
// must have the same path. Where none fits, the error is ErrNotInherited and lists what there is: such a program
// is not to bind sockets of its own.
//
// In the manager the listener is not for accepting (where there is a Command it blocks a thread then), and closing it
// takes nothing from the workers. The file of a unix
// socket that the Manager bound is removed when Run ends, and when WaitAllChildren has reaped the last worker after the
// shutdown signal (to Start again after that, Listen has to be called by a new process); a worker never removes it. One that a dead manager left behind is replaced; one on which somebody
// answers is an error. What workers start does not inherit sockets; a Command does, see Config.Command.
//
// In a worker the error is ErrNotInherited when the manager made no such call before it spawned the worker. Either
// process, any goroutine. It does not block, but for looking up a host name, a look at a unix socket's file that exists, and
// about a second where another program has that file's directory locked (flock): a file that a dead manager left behind is an
// error then.
func (m *Manager) Listen(network, address string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, listenError("Listen", network, address, net.UnknownNetworkError(network))
	}
	if m.foreign {
		return newIdle(network, address), nil
	}
	ln, err := obtain(m, network, address, inherit.Shared, net.Listen, net.FileListener)
	if err != nil {
		return nil, listenError("Listen", network, address, err)
	}
	return ln, nil
}

// ListenPacket is Listen for datagrams: the network is "udp", "udp4", "udp6" or "unixgram". All workers read from one
// socket, so each datagram is read by one of them.
func (m *Manager) ListenPacket(network, address string) (net.PacketConn, error) {
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
	default:
		return nil, listenError("ListenPacket", network, address, net.UnknownNetworkError(network))
	}
	if m.foreign {
		return newIdle(network, address), nil
	}
	pc, err := obtain(m, network, address, inherit.Shared, net.ListenPacket, net.FilePacketConn)
	if err != nil {
		return nil, listenError("ListenPacket", network, address, err)
	}
	return pc, nil
}

func listenError(call, network, address string, err error) error {
	return fmt.Errorf("prefork: %s(%q, %q): %w", call, network, address, err)
}

// closer is what a net.Listener and a net.PacketConn have in common here.
type closer interface{ Close() error }

// obtain inherits a socket in a worker; in the manager it takes one that fits from those that the process was given, or
// binds one if it was given none.
func obtain[T closer](m *Manager, network, address string, kind int, bind func(network, address string) (T, error), wrap func(*os.File) (T, error)) (s T, err error) {
	if self.role == inherit.Worker {
		_, got, err := self.inherited(network, address, sharedAs(kind))
		if err != nil {
			return s, err
		}
		return wrapFD(got.FD, network+" "+address, wrap)
	}
	fd, given, err := self.given(network, address)
	if err != nil {
		return s, err
	}
	sock := &socket{fd: -1, network: network, address: address, fellBack: kind == inherit.FellBack}
	if !given && self.role == inherit.Successor {
		// What the manager before this one did not have is new in this version of the program.
		if _, got, err := self.inherited(network, address, sharedAs(kind)); err == nil {
			fd, given = got.FD, true
			if got.Own {
				sock.ownedBefore, _ = filepath.Abs(address)
			}
		}
	}
	if given {
		s, err = wrapFD(fd, network+" "+address, wrap)
	} else {
		s, err = bindSocket(m, sock, bind)
	}
	if err != nil {
		return s, err
	}
	if err = m.keep(sock, s); err != nil {
		s.Close()
		return s, err
	}
	return s, nil
}

// keep makes a socket of the manager's one that workers inherit.
func (m *Manager) keep(sock *socket, s any) (err error) {
	if sock.fd, err = dupSocket(s); err != nil {
		return err
	}
	switch s := s.(type) {
	case net.Listener:
		sock.bound = s.Addr().String()
	case net.PacketConn:
		sock.bound = s.LocalAddr().String()
	}
	if m.cfg.Command != nil {
		path := sock.ownedBefore
		if sock.file != nil {
			path = sock.file.path
		}
		if sock.name, err = inherit.StarterName(sock.fd, path); err == nil {
			// Who starts a program for start_server hands it sockets that block; Go's do not, and that is a property
			// which all share. Starlet would spin on one, Python's accept fail.
			err = inherit.SetBlocking(sock.fd, true)
		}
		if err != nil {
			inherit.Close(sock.fd)
			m.removeFile(sock)
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, sock)
	return nil
}

// wrapFD makes a listener or connection of a descriptor, which it takes over.
func wrapFD[T closer](fd int, name string, wrap func(*os.File) (T, error)) (s T, err error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return wrap(f) // duplicates the descriptor, close-on-exec
}
