package prefork

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
)

// socket is a socket of the manager, which its workers inherit.
type socket struct {
	fd               int // a duplicate of our own, so that closing the listener takes nothing from the workers
	network, address string
	file             *socketFile // of a unix socket that this Manager bound; nil for others
}

// socketFile is the file of a unix socket, by what tells it from another of the same name.
type socketFile struct {
	path string
	info os.FileInfo
}

// bindSocket makes a socket in the manager.
func bindSocket[T closer](m *Manager, sock *socket, bind func(network, address string) (T, error)) (s T, err error) {
	path := ""
	if strings.HasPrefix(sock.network, "unix") && sock.address != "" && sock.address[0] != '@' {
		path = sock.address
	}
	if path != "" && m.cfg.Command != nil && strings.ContainsAny(path, ";=") {
		return s, fmt.Errorf("a path with %q cannot be written into %s for Config.Command", ";=", inherit.StarterEnv)
	}
	s, err = bind(sock.network, sock.address)
	if path != "" && errors.Is(err, syscall.EADDRINUSE) {
		if err = removeStale(sock.network, path); err == nil {
			s, err = bind(sock.network, sock.address)
		}
	}
	if err != nil {
		return s, err
	}
	if u, ok := any(s).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove whatever has this name by then
	}
	if sock.fd, err = dupSocket(s); err != nil {
		s.Close()
		return s, err
	}
	if path != "" {
		if sock.file, err = statSocket(path); err != nil {
			m.log.Warn("the file of a socket is gone already; it will not be removed", "path", path, "err", err)
		}
	}
	return s, nil
}

// removeStale removes the file of a unix socket on which nobody answers any more.
func removeStale(network, path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if before.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket: %w", path, syscall.EADDRINUSE)
	}
	conn, err := net.DialTimeout(network, path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("somebody serves on %s: stop that program first: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("somebody may serve on %s (%v): %w", path, err, syscall.EADDRINUSE)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, before) {
		return fmt.Errorf("%s changed while it was looked at: %w", path, syscall.EADDRINUSE)
	}
	return os.Remove(path)
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

// dupSocket duplicates the descriptor of a listener or connection.
func dupSocket(s any) (fd int, err error) {
	conn, err := s.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := conn.Control(func(raw uintptr) { fd, err = inherit.DupCloseOnExec(raw) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// removeSocketFiles removes the files of the unix sockets that this Manager bound, once, where they are still its own.
func (m *Manager) removeSocketFiles() {
	m.mu.Lock()
	sockets := slices.Clone(m.sockets)
	m.mu.Unlock()
	for _, s := range sockets {
		m.mu.Lock()
		file := s.file
		s.file = nil
		m.mu.Unlock()
		if file == nil {
			continue
		}
		if now, err := os.Lstat(file.path); err != nil || !os.SameFile(now, file.info) {
			continue
		}
		if err := os.Remove(file.path); err != nil {
			m.log.Error("cannot remove the file of a socket", "path", file.path, "err", err)
		}
	}
}

// inherited takes a worker's socket: the first with these words that no call has taken yet.
func (p *process) inherited(network, address string) (fd int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var there []string
	for i := range p.marker.Sockets {
		s := &p.marker.Sockets[i]
		if s.Network == network && s.Address == address && s.FD >= 0 {
			fd, s.FD = s.FD, -1
			return fd, nil
		}
		there = append(there, s.Network+" "+s.Address)
	}
	return -1, fmt.Errorf("%w (%s): a worker gets the sockets that the manager asked for by the same words before Start",
		ErrNotInherited, oneOf(there))
}

// given takes a socket that this process was handed by start_server or systemd; false if it was handed none at all.
func (p *process) given(network, address string) (fd int, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		p.asked = true
		all, err := inherit.AllGiven()
		p.outsideErr = err
		for i := range all {
			p.outside = append(p.outside, &all[i])
		}
	}
	if p.outsideErr != nil || p.outside == nil {
		return -1, false, p.outsideErr
	}
	free := slices.DeleteFunc(slices.Clone(p.outside), func(g *inherit.Given) bool { return g.FD < 0 })
	if g := inherit.Fit(free, network, address); g != nil {
		fd, g.FD = g.FD, -1
		return fd, true, nil
	}
	var there []string
	for _, g := range free {
		there = append(there, g.String())
	}
	return -1, false, fmt.Errorf("%w (%s): start the program with such a socket, or ask for one of these", ErrNotInherited, oneOf(there))
}

func oneOf(there []string) string {
	if there == nil {
		return "none is left"
	}
	return strings.Join(there, ", ")
}

// idle is what a worker has of a socket of another Manager of the program: nothing comes on it.
type idle struct {
	network, address string
	closed           chan struct{}
	once             sync.Once
}

func newIdle(network, address string) *idle {
	return &idle{network: network, address: address, closed: make(chan struct{})}
}

func (s *idle) Network() string { return s.network }
func (s *idle) String() string  { return s.address }

func (s *idle) Addr() net.Addr      { return s }
func (s *idle) LocalAddr() net.Addr { return s }

func (s *idle) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s *idle) ReadFrom([]byte) (int, net.Addr, error) {
	<-s.closed
	return 0, nil, net.ErrClosed
}

func (s *idle) WriteTo([]byte, net.Addr) (int, error) {
	return 0, fmt.Errorf("the socket belongs to another Manager of the program: %w", net.ErrClosed)
}

func (s *idle) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *idle) SetDeadline(time.Time) error      { return nil }
func (s *idle) SetReadDeadline(time.Time) error  { return nil }
func (s *idle) SetWriteDeadline(time.Time) error { return nil }
