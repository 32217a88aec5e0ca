package prefork

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	bound            string      // the address that it listens on
	group            *group      // of a listener with a socket for each slot, of which fd is the first
	fellBack         bool        // sockets for each worker were asked for
	name             string      // in SERVER_STARTER_PORT, for a Command
	ownedBefore      string      // the path of the file that the manager before this one still owns
}

// socketFile is the file of a unix socket, by what tells it from another of the same name.
type socketFile struct {
	path string
	info os.FileInfo
}

// bindSocket makes a socket in the manager. That of a unix socket's file is made under a lock on its directory: from
// finding that nobody answers on an old file to answering on the new one nobody else may come to the same conclusion.
// Without the lock, since anybody may have it, a file that exists is left alone.
func bindSocket[T closer](m *Manager, sock *socket, bind func(network, address string) (T, error)) (s T, err error) {
	path := sock.address
	if !strings.HasPrefix(sock.network, "unix") || path == "" || path[0] == '@' {
		return bind(sock.network, sock.address)
	}
	unlock, lockErr := inherit.LockDir(path)
	if lockErr == nil {
		defer unlock()
	}
	s, err = bind(sock.network, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if m.bound(path) {
			return s, fmt.Errorf("this Manager listens on it already: %w", syscall.EADDRINUSE)
		}
		if lockErr != nil {
			return s, fmt.Errorf("the file exists, and whether it is in use cannot be told safely (%v): remove the file if no program serves on it: %w", lockErr, syscall.EADDRINUSE)
		}
		if err = removeStale(sock.network, path); err == nil {
			s, err = bind(sock.network, path)
		}
	}
	if err != nil {
		return s, err
	}
	if u, ok := any(s).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove whatever has this name by then
	}
	if sock.file, err = statSocket(path); err != nil {
		s.Close()
	}
	return s, err
}

// bound tells whether a path is that of a socket of this Manager.
func (m *Manager) bound(path string) bool {
	abs, err := filepath.Abs(path)
	m.mu.Lock()
	defer m.mu.Unlock()
	return err == nil && slices.ContainsFunc(m.sockets, func(s *socket) bool { return s.file != nil && s.file.path == abs })
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

// removeSocketFiles removes the files of the unix sockets that this Manager bound.
func (m *Manager) removeSocketFiles() {
	for _, s := range m.allSockets() {
		m.removeFile(s)
	}
}

// removeFile removes the file of a socket, once, where it is still the one that was bound.
func (m *Manager) removeFile(s *socket) {
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

// allSockets are those of the calls of Listen so far, in their order.
func (m *Manager) allSockets() []*socket {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sockets)
}

// inherited takes a socket of a worker or a successor: the first with these words that no call has taken yet.
func (p *process) inherited(network, address string, fits func(inherit.Socket) bool) (i int, got inherit.Socket, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var there []string
	for i := range p.marker.Sockets {
		s := &p.marker.Sockets[i]
		if s.Network == network && s.Address == address && s.FD >= 0 && fits(*s) {
			got = *s
			s.FD = -1
			return i, got, nil
		}
		taken := ""
		if s.FD < 0 {
			taken = " (taken)"
		}
		there = append(there, s.Network+" "+s.Address+taken)
	}
	return 0, got, fmt.Errorf("%w (%s): a worker gets the sockets that the manager asked for by the same words before Start",
		ErrNotInherited, oneOf(there))
}

// isGiven tells whether this process was handed sockets.
func (p *process) isGiven() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wasGiven
}

// lookOutside finds the sockets that this process was handed by start_server or systemd, once.
func (p *process) lookOutside() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.looked {
		return
	}
	p.looked = true
	p.byStarter = os.Getenv(inherit.StarterEnv) != "" || os.Getenv(inherit.StarterGenerationEnv) != "" // the second also without sockets
	all, err := inherit.AllGiven()
	p.outsideErr = err
	for i := range all {
		p.outside = append(p.outside, &all[i])
	}
	p.wasGiven = len(all) > 0
}

// given takes a socket that this process was handed; false if it was handed none at all.
func (p *process) given(network, address string) (fd int, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outsideErr != nil || !p.wasGiven {
		return -1, false, p.outsideErr
	}
	g, err := inherit.Fit(p.outside, network, address)
	if err != nil {
		return -1, false, err
	}
	if g != nil {
		p.outside = slices.DeleteFunc(p.outside, func(other *inherit.Given) bool { return other == g })
		inherit.ForgetGiven()
		return g.FD, true, nil
	}
	var there []string
	for _, g := range p.outside {
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
	addr   net.Addr
	closed chan struct{}
	once   sync.Once
}

// newIdle gives the address that was asked for, in the type that programs look for.
func newIdle(network, address string) *idle {
	s := &idle{addr: &net.UnixAddr{Net: network, Name: address}, closed: make(chan struct{})}
	host, port, _ := net.SplitHostPort(address)
	ip, _ := netip.ParseAddr(host)
	n, _ := strconv.Atoi(port)
	switch network[:3] {
	case "tcp":
		s.addr = &net.TCPAddr{IP: ip.AsSlice(), Port: n, Zone: ip.Zone()}
	case "udp":
		s.addr = &net.UDPAddr{IP: ip.AsSlice(), Port: n, Zone: ip.Zone()}
	}
	return s
}

func (s *idle) Addr() net.Addr      { return s.addr }
func (s *idle) LocalAddr() net.Addr { return s.addr }

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
