package sockets

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
)

// bind makes a socket in the manager. It makes the file of a unix socket under
// a lock on the file's directory: between finding that no process answers on an
// old file and answering on the new one, no other process may reach the same
// conclusion. Any process may hold that lock; without it, an existing file is
// left alone.
//
// The directory is held open, and the file is changed and removed there. The
// kernel reports the path as the address, so bind needs the path itself.
func bind[T closer](set *Set, sock *socket, bind func(network, address string) (T, error)) (s T, err error) {
	path := sock.address
	if !strings.HasPrefix(sock.network, "unix") || path == "" {
		return bind(sock.network, path)
	}
	if err := checkPath(path); err != nil {
		return s, err
	}
	if path[0] == '@' {
		return bind(sock.network, path)
	}
	at, err := hold(path)
	if err != nil {
		return s, err
	}
	defer func() {
		if sock.file == nil {
			at.close()
		}
	}()
	unlock, lockErr := at.lock()
	if lockErr == nil {
		defer unlock()
	}
	at.look()
	s, err = bind(sock.network, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if set.hasFile(path) {
			return s, fmt.Errorf("this Manager already listens on it: %w", syscall.EADDRINUSE)
		}
		if lockErr != nil {
			return s, fmt.Errorf("the file exists and cannot be checked safely (%v): remove the file if no program serves on it: %w", lockErr, syscall.EADDRINUSE)
		}
		if err = at.removeStale(sock.network, path, net.DialTimeout); err == nil {
			at.look()
			s, err = bind(sock.network, path)
		}
	}
	if err != nil {
		return s, err
	}
	if u, ok := any(s).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove any file of this name, also another program's
	}
	if sock.file, err = at.madeBy(s); err != nil {
		s.Close()
	}
	return s, err
}

// madeBy returns the file that bind has made for a socket.
func (p *place) madeBy(s any) (f *socketFile, err error) {
	conn, err := s.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := conn.Control(func(raw uintptr) { f, err = p.fileOf(int(raw), false) }); cerr != nil {
		return nil, cerr
	}
	return f, err
}

// inheritedFile returns the file of a socket that the predecessor has bound.
func inheritedFile(path string, socket int) (*socketFile, error) {
	at, err := hold(path)
	if err != nil {
		return nil, err
	}
	f, err := at.fileOf(socket, true)
	if err != nil {
		at.close()
	}
	return f, err
}

// checkPath returns an error for a path that is too long for the kernel, which
// reports only "invalid argument". A path ends with a 0 there, and an abstract
// address begins with one.
func checkPath(path string) error {
	most := len(syscall.RawSockaddrUnix{}.Path)
	if path[0] != '@' {
		most--
	}
	if len(path) <= most {
		return nil
	}
	return fmt.Errorf("the path has %d bytes, and a unix socket may have %d: choose a shorter path, or one below the working directory: %w", len(path), most, syscall.ENAMETOOLONG)
}

// removeStale removes the file of a unix socket on which no process answers. dial
// is net.DialTimeout, except in tests.
func (p *place) removeStale(network, path string, dial func(network, address string, timeout time.Duration) (net.Conn, error)) error {
	f, err := p.find()
	if err != nil {
		return err
	}
	defer f.release()
	if !f.isSocket() {
		return fmt.Errorf("%s exists and is not a socket: %w", path, syscall.EADDRINUSE)
	}
	conn, err := dial(network, f.address(path), time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another program serves on %s: stop it first: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("another program may serve on %s (%v): %w", path, err, syscall.EADDRINUSE)
	}
	if !f.inPlace() {
		return fmt.Errorf("%s was replaced while it was being checked: %w", path, syscall.EADDRINUSE)
	}
	return f.remove()
}

// hasFile reports whether this Set has made the socket at path.
func (set *Set) hasFile(path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	return slices.ContainsFunc(set.list, func(s *socket) bool { return s.file != nil && s.file.path == abs })
}

// RemoveFiles removes the files of the unix sockets that the manager bound.
func (set *Set) RemoveFiles() {
	for _, s := range set.withFiles() {
		set.removeFile(s)
	}
}

// removeFile removes the file of a socket, once, unless another file has taken
// its name.
func (set *Set) removeFile(s *socket) {
	set.mu.Lock()
	file := s.file
	s.file = nil
	set.mu.Unlock()
	if file == nil {
		return
	}
	if file.inPlace() {
		if err := file.remove(); err != nil {
			set.cfg.Log.Error("cannot remove socket file", "path", file.path, "err", err)
		}
	}
	file.close()
}

// ReleaseFiles leaves the socket files to the successor that has taken over,
// and stops steering connections.
func (set *Set) ReleaseFiles() {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range slices.Concat(set.list, set.closed) {
		if s.file != nil {
			s.file.close()
			s.file = nil
		}
	}
	set.passive = true
}

// TakeOver makes the files of inherited unix sockets this manager's to remove,
// closes inherited sockets that no call of Listen has asked for, and starts
// steering connections. A successor calls it when its predecessor has handed
// over.
func (set *Set) TakeOver() {
	for _, s := range set.withFiles() {
		if s.predecessors == "" {
			continue
		}
		file, err := inheritedFile(s.predecessors, s.fd)
		if err != nil {
			set.cfg.Log.Error("socket file is gone, clients cannot connect", "path", s.predecessors, "err", err)
			continue
		}
		set.mu.Lock()
		s.file, s.predecessors = file, ""
		set.mu.Unlock()
	}
	set.mu.Lock()
	set.passive = false
	set.mu.Unlock()
	for _, s := range set.cfg.Inherited.takeUnclaimed() {
		if s.Own {
			if file, err := inheritedFile(set.pathOf(s), s.FD); err == nil {
				file.remove()
				file.close()
			}
		}
		fd.Close(s.FD)
	}
}
