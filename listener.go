package prefork

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/prefork-go/prefork/internal/inherit"
)

// socket is a listening socket of the manager.
type socket struct {
	fd               int // a duplicate of our own, so that closing the listener takes nothing from the workers
	network, address string
	file             *socketFile // of a unix socket; nil for others
}

// socketFile is the file of a unix socket, by what tells it from another of the same name.
type socketFile struct {
	path string
	info os.FileInfo
}

// Listen binds a listening socket in the manager, once, and returns it in every worker that is spawned from then on:
// the same call, before Start, does both. The network is "tcp", "tcp4", "tcp6" or "unix". Several equal calls give
// several sockets, in the order of the calls.
//
// In the manager the listener is not for accepting; closing it takes nothing from the workers. The file of a unix socket
// is removed when the manager closes the listener, when Run ends, and when WaitAllChildren has reaped the last worker
// after the shutdown signal; a worker never removes it. What workers start does not inherit the socket.
//
// In a worker it returns ErrNotInherited (in a wrapping error that lists what there is) when the manager made no such
// call before it spawned the worker. Either process, any goroutine; it does not block.
func (m *Manager) Listen(network, address string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, fmt.Errorf("prefork: Listen(%q, %q): %w", network, address, net.UnknownNetworkError(network))
	}
	if self.role == inherit.Worker {
		return m.inheritListener(network, address)
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("prefork: %w", err)
	}
	s := &socket{network: network, address: address}
	if s.fd, err = dupListener(ln); err != nil {
		ln.Close()
		return nil, fmt.Errorf("prefork: Listen(%q, %q): %w", network, address, err)
	}
	if u, ok := ln.(*net.UnixListener); ok && address != "" && address[0] != '@' {
		u.SetUnlinkOnClose(false)
		if s.file, err = statSocket(address); err != nil {
			m.log.Warn("the file of a socket is gone already; it will not be removed", "path", address, "err", err)
		}
		ln = &unixListener{ln, sync.OnceFunc(func() { m.removeSocketFile(s) })}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, s)
	return ln, nil
}

// inheritListener finds a worker's socket: the first with these words that no call has taken yet.
func (m *Manager) inheritListener(network, address string) (net.Listener, error) {
	if m.foreign {
		return newIdleListener(network, address), nil
	}
	self.mu.Lock()
	defer self.mu.Unlock()
	var there []string
	for i := range self.marker.Sockets {
		s := &self.marker.Sockets[i]
		if s.Network == network && s.Address == address && s.FD >= 0 {
			f := os.NewFile(uintptr(s.FD), network+" "+address)
			s.FD = -1
			defer f.Close()
			ln, err := net.FileListener(f) // duplicates the descriptor, close-on-exec
			if err != nil {
				return nil, fmt.Errorf("prefork: Listen(%q, %q): inherited socket: %w", network, address, err)
			}
			return ln, nil
		}
		there = append(there, fmt.Sprintf("%s %s", s.Network, s.Address))
	}
	if there == nil {
		there = append(there, "none")
	}
	return nil, fmt.Errorf("prefork: Listen(%q, %q): %w (%s): a worker gets the sockets that the manager asked for by the same words before Start",
		network, address, ErrNotInherited, strings.Join(there, ", "))
}

// removeSocketFiles removes the files of the unix sockets that this Manager made.
func (m *Manager) removeSocketFiles() {
	m.mu.Lock()
	sockets := slices.Clone(m.sockets)
	m.mu.Unlock()
	for _, s := range sockets {
		m.removeSocketFile(s)
	}
}

// removeSocketFile removes the file of a unix socket, once, where it is still the one that was made.
func (m *Manager) removeSocketFile(s *socket) {
	m.mu.Lock()
	file := s.file
	s.file = nil
	m.mu.Unlock()
	if file == nil {
		return
	}
	if now, err := os.Lstat(file.path); err != nil || !os.SameFile(now, file.info) {
		return
	}
	if err := os.Remove(file.path); err != nil {
		m.log.Error("cannot remove the file of a socket", "path", file.path, "err", err)
	}
}

func statSocket(path string) (*socketFile, error) {
	path, err := filepath.Abs(path) // the program may change its directory
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return &socketFile{path: path, info: info}, nil
}

// dupListener duplicates the socket of a listener.
func dupListener(ln net.Listener) (fd int, err error) {
	conn, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := conn.Control(func(raw uintptr) { fd, err = inherit.DupCloseOnExec(raw) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// unixListener is a unix socket in the manager that made it. net.UnixListener would remove whatever has the socket's
// name when it is closed, also the socket of a later manager.
type unixListener struct {
	net.Listener
	remove func()
}

func (l *unixListener) Close() error {
	l.remove()
	return l.Listener.Close()
}

// idleListener is what a worker has of a socket of another Manager of the program: nothing to accept.
type idleListener struct {
	addr   idleAddr
	closed chan struct{}
	once   sync.Once
}

type idleAddr struct{ network, address string }

func (a idleAddr) Network() string { return a.network }
func (a idleAddr) String() string  { return a.address }

func newIdleListener(network, address string) *idleListener {
	return &idleListener{addr: idleAddr{network, address}, closed: make(chan struct{})}
}

func (l *idleListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *idleListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *idleListener) Addr() net.Addr { return l.addr }
