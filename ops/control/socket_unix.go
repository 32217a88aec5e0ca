//go:build unix && !solaris && !aix

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/safedir"
)

// A socket is a listening socket. Its file is shared with the successor of an
// upgrade.
type socket struct {
	ln      *net.UnixListener
	file    *os.File // for a successor
	address string

	dir *safedir.Dir // of the socket's file; nil for an abstract name
	st  *unix.Stat_t // of the socket's file
}

// newSocket returns the socket of a listening descriptor, which it owns.
func newSocket(f *os.File, address string) (*socket, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	unixLn, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, errors.New("not a unix socket")
	}
	unixLn.SetUnlinkOnClose(false) // remove decides
	return &socket{ln: unixLn, file: f, address: address}, nil
}

// adopt returns the socket that the predecessor has passed on.
func adopt(f *os.File) (*socket, error) {
	s, err := newSocket(f, "")
	if err != nil {
		return nil, err
	}
	s.address = s.ln.Addr().String()
	if !strings.HasPrefix(s.address, "@") {
		s.noteFile()
	}
	return s, nil
}

// noteFile notes the file of the socket, so that remove finds it. Without it the
// socket works as well.
func (s *socket) noteFile() {
	dir, err := safedir.Open(filepath.Dir(s.address))
	if err != nil {
		return
	}
	st, err := dir.Lstat(filepath.Base(s.address))
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		dir.Close()
		return
	}
	s.dir, s.st = dir, st
}

// claim makes this process the one whose credentials clients get, and gives the
// socket's file, which the predecessor has made, the mode and group of perm.
func (s *socket) claim(perm permissions) error {
	if raw, err := fd.Raw(s.file); err == nil {
		unix.Listen(int(raw), unix.SOMAXCONN)
	}
	if s.dir == nil {
		return nil
	}
	return openUp(s.dir, filepath.Base(s.address), s.st, perm)
}

// close closes this process's descriptors.
func (s *socket) close() {
	s.ln.Close()
	s.file.Close()
	if s.dir != nil {
		s.dir.Close()
	}
}

// remove removes the socket's file, unless a successor listens on it.
func (s *socket) remove() {
	if s.dir == nil {
		return
	}
	name := filepath.Base(s.address)
	st, err := s.dir.Lstat(name)
	if err != nil || !safedir.SameFile(st, s.st) {
		return
	}
	s.ln.Close()
	if prefork.HandedOver() && isAlive(s.address) {
		return
	}
	s.dir.Remove(name)
}

// isAlive reports whether a process listens at an address. It may be suspended.
func isAlive(address string) bool {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: address})
	if err == nil {
		conn.Close()
		return true
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// listenFile makes a socket with a file.
func (p place) listenFile(path string, perm permissions) (*socket, error) {
	dirPath, name := filepath.Split(path)
	made := false
	if p.makeDir != 0 {
		err := os.Mkdir(dirPath, p.makeDir)
		if made = err == nil; !made && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	dir, err := safedir.Open(dirPath)
	if err != nil {
		return nil, err
	}
	if made { // with this mode, whatever the umask
		unix.Fchmod(int(dir.Fd()), uint32(p.makeDir))
	}
	s, err := listenIn(dir, name, path, perm)
	if err != nil {
		dir.Close()
	}
	return s, err
}

func listenIn(dir *safedir.Dir, name, path string, perm permissions) (*socket, error) {
	if err := dir.Shared(); err != nil && !dir.Sticky() {
		return nil, err // others could replace the socket
	}
	var f *os.File
	for try := 0; ; try++ {
		err := removeDead(dir, name, path)
		if err == nil {
			f, err = bindFile(dir, name, path)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, safedir.ErrReplaced) || try == 10 {
			return nil, err
		}
	}
	s, err := newSocket(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	if s.st, err = dir.Lstat(name); err == nil {
		s.dir = dir
		if perm.mode() != ownerOnly {
			err = openUp(dir, name, s.st, perm)
		}
	}
	if err != nil {
		s.remove()
		s.ln.Close()
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// openUp lets others connect, or no longer. It changes the very file in the directory that is
// held open: another user may be able to lead the path elsewhere.
func openUp(dir *safedir.Dir, name string, st *unix.Stat_t, perm permissions) error {
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Nlink != 1 || st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s: %w", filepath.Join(dir.Path(), name), safedir.ErrReplaced)
	}
	if perm.group >= 0 {
		if err := chgrp(dir, name, st, int(perm.group)); err != nil {
			return fmt.Errorf("Config.Group: %w", err)
		}
	}
	return chmod(dir, name, st, uint32(perm.mode()))
}

// removeDead removes a socket on which no process listens. It returns errTaken if
// one does, and an error for a file of another kind.
func removeDead(dir *safedir.Dir, name, path string) error {
	st, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is in the way, and no socket: remove it", path)
	}
	if isAlive(path) {
		return errTaken
	}
	return removeSame(dir, name, st)
}

// removeSame removes a file if it is the one that was examined. Another manager may
// have done the same, and bound its socket since. So the file is examined again under
// a name that only this process uses.
func removeSame(dir *safedir.Dir, name string, st *unix.Stat_t) error {
	aside := "." + name + "." + strconv.Itoa(os.Getpid())
	if err := dir.Rename(name, aside); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	moved, err := dir.Lstat(aside)
	if err == nil && !safedir.SameFile(st, moved) {
		if err = dir.Rename(aside, name); err == nil {
			return safedir.ErrReplaced
		}
	}
	return errors.Join(err, dir.Remove(aside))
}
