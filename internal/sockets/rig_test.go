//go:build unix

package sockets

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// newSet returns a Set in a process that was started without sockets, unless cfg
// has them.
func newSet(t *testing.T, cfg Config) *Set {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Inherited == nil {
		cfg.Inherited = NewInherited(nil, nil)
	}
	if cfg.MaxWorkers == nil {
		cfg.MaxWorkers = func() int { return 2 }
	}
	set := New(cfg)
	t.Cleanup(set.Close)
	return set
}

// socketDir returns a directory whose path is short enough for a unix socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// listen makes a listener, which the test closes at its end.
func listen[T io.Closer](t *testing.T, call func(network, address string) (T, error), network, address string) T {
	t.Helper()
	ln, err := call(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// bequest returns a marker's socket for a new listener, of which it owns the only
// descriptor.
func bequest(t *testing.T, network, address string) marker.Socket {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := duplicate(ln)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	ln.Close()
	return marker.Socket{FD: descriptor, Network: network, Address: address, Slot: marker.Shared}
}

// isOpen reports whether a descriptor is open.
func isOpen(descriptor int) bool {
	_, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0)
	return err == nil
}

// isSame reports whether two descriptors are duplicates of one socket.
func isSame(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}

// leaveStale leaves the file of a unix socket on which no process answers.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	fd.Close(bequest(t, "unix", path).FD)
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// absent is a name in a new directory.
func absent(t *testing.T) string { return filepath.Join(socketDir(t), "sock") }

func copied(t *testing.T, descriptor int) int {
	t.Helper()
	descriptor, err := fd.Duplicate(uintptr(descriptor))
	if err != nil {
		t.Fatal(err)
	}
	return descriptor
}
