package reuseport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownKey is the key of the slot's own socket. Keys of adopted sockets are not
// negative.
const ownKey = -1

// acceptTimeout is how long Accept waits on a socket that was ready a moment
// ago, if the Listener has others. Another process may have accepted the
// connection first: two workers share a socket while one replaces the other,
// and while one drops a socket that the other has adopted.
const acceptTimeout = 2 * time.Millisecond

// A Listener accepts connections from the socket of a worker's slot and from
// adopted sockets. It is used in workers, and is safe for concurrent use.
//
// With only its own socket, Accept works as in package net. With more, all
// sockets are in one epoll instance, which the runtime's poller watches. In
// either case a connection leaves the accept queue of the kernel only inside
// Accept, so that another worker can accept it until then.
type Listener struct {
	addr  net.Addr
	epfd  int      // descriptor of epoll; File.Fd may change O_NONBLOCK
	epoll *os.File // owns epfd
	conn  syscall.RawConn

	mu       sync.Mutex
	awaiting bool                     // Own has not been called yet
	sockets  map[int]*net.TCPListener // by key, including ownKey; nil after Close
	deadline time.Time                // set by the program
}

// NewListener returns a Listener for the socket of a slot. It takes ownership
// of fd, also if it fails.
func NewListener(fd int) (*Listener, error) {
	l := &Listener{sockets: make(map[int]*net.TCPListener)}
	if err := l.openEpoll(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := l.add(ownKey, fd); err != nil {
		l.epoll.Close()
		return nil, err
	}
	l.addr = l.sockets[ownKey].Addr()
	return l, nil
}

// AwaitListener returns a Listener for a worker that has no slot yet. It takes
// the address from fd and closes fd, also if it fails: the worker must not
// accept from that socket. Accept panics until Own has been called.
func AwaitListener(fd int) (*Listener, error) {
	l, err := NewListener(fd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(ownKey)
	l.awaiting = true
	return l, nil
}

// Own sets the socket of the slot in a Listener from AwaitListener. It takes
// ownership of fd, also if it fails. After Close it returns net.ErrClosed.
func (l *Listener) Own(fd int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sockets == nil:
		unix.Close(fd)
		return net.ErrClosed
	case !l.awaiting:
		unix.Close(fd)
		return unix.EEXIST
	}
	if err := l.add(ownKey, fd); err != nil {
		return err
	}
	l.awaiting = false
	return l.sockets[ownKey].SetDeadline(l.deadline)
}

func (l *Listener) openEpoll() (err error) {
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// os.NewFile adds only a non-blocking descriptor to the runtime's
	// poller.
	if err := unix.SetNonblock(l.epfd, true); err != nil {
		unix.Close(l.epfd)
		return os.NewSyscallError("fcntl", err)
	}
	l.epoll = os.NewFile(uintptr(l.epfd), "epoll")
	l.conn, err = l.epoll.SyscallConn()
	if err == nil {
		err = l.epoll.SetReadDeadline(time.Time{}) // fails if the poller did not accept epfd
	}
	if err != nil {
		l.epoll.Close()
	}
	return err
}

// add takes ownership of fd, also if it fails. The caller must hold mu.
func (l *Listener) add(key, fd int) error {
	file := os.NewFile(uintptr(fd), "socket")
	if file == nil {
		return os.NewSyscallError("fcntl", unix.EBADF)
	}
	defer file.Close()
	generic, err := net.FileListener(file) // duplicates the descriptor
	if err != nil {
		return err
	}
	ln, ok := generic.(*net.TCPListener)
	if !ok {
		generic.Close()
		return fmt.Errorf("%s socket in a TCP listener: %w", generic.Addr().Network(), errors.ErrUnsupported)
	}
	if err := l.epollCtl(unix.EPOLL_CTL_ADD, ln, key); err != nil {
		ln.Close()
		return err
	}
	l.sockets[key] = ln
	return nil
}

func (l *Listener) epollCtl(op int, ln *net.TCPListener, key int) error {
	conn, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	return control(conn, func(fd int) error {
		return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epfd, op, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(key)}))
	})
}

// Adopt makes Accept accept connections from the socket fd, too. The key must
// not be negative or in use. Adopt takes ownership of fd, also if it fails.
// After Close it returns net.ErrClosed.
func (l *Listener) Adopt(key, fd int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	switch {
	case l.sockets == nil:
		err = net.ErrClosed
	case key < 0:
		err = unix.EINVAL
	case l.sockets[key] != nil:
		err = unix.EEXIST
	default:
		if err = l.add(key, fd); err != nil {
			return fmt.Errorf("adopt socket %d: %w", key, err)
		}
		if len(l.sockets) == 2 {
			l.sockets[ownKey].SetDeadline(time.Unix(1, 0)) // wakes an Accept on the own socket
		}
		return nil
	}
	unix.Close(fd)
	return fmt.Errorf("adopt socket %d: %w", key, err)
}

// Drop reverses Adopt. Connections that are still queued are left to other
// workers. Drop ignores an unknown key.
func (l *Listener) Drop(key int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key < 0 || l.sockets[key] == nil {
		return
	}
	l.remove(key)
	if len(l.sockets) == 1 {
		l.sockets[ownKey].SetDeadline(l.deadline)
	}
}

// remove closes a socket. The caller must hold mu.
func (l *Listener) remove(key int) {
	ln := l.sockets[key]
	delete(l.sockets, key)
	// The kernel removes a socket from epoll only with its last descriptor,
	// and the manager holds another one.
	if err := l.epollCtl(unix.EPOLL_CTL_DEL, ln, key); err != nil {
		panic("reuseport: remove socket from epoll: " + err.Error())
	}
	ln.Close()
}

// Accept waits for a connection on any of the sockets. It returns a
// *net.TCPConn.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		ln, err := l.waitReady()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: err}
		}
		conn, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed): // also after Drop
		case errors.Is(err, os.ErrDeadlineExceeded) && !l.expired(): // acceptTimeout, or Adopt
		default:
			return conn, err
		}
	}
}

// waitReady returns the slot's own socket if there is no other, or else a
// socket with a connection.
func (l *Listener) waitReady() (*net.TCPListener, error) {
	for {
		l.mu.Lock()
		closed, awaiting, single, own := l.sockets == nil, l.awaiting, len(l.sockets) == 1, l.sockets[ownKey]
		l.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if awaiting {
			panic("prefork: Accept on a listener of ListenPerWorker before Start has returned: a standby has no socket until it has a slot; call Accept after Start")
		}
		if single {
			return own, nil
		}
		key, err := l.readyKey()
		if err != nil {
			return nil, l.closedOr(err)
		}
		if ln := l.socket(key); ln != nil {
			return ln, nil
		}
	}
}

// socket returns the socket with that key, or nil if it was dropped. If there
// are others, it limits Accept on the socket to acceptTimeout.
func (l *Listener) socket(key int) *net.TCPListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.sockets[key]
	if ln != nil && len(l.sockets) > 1 {
		ln.SetDeadline(time.Now().Add(acceptTimeout))
	}
	return ln
}

// expired reports whether the program's deadline has passed.
func (l *Listener) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.deadline.IsZero() && !time.Now().Before(l.deadline)
}

// readyKey waits for a socket with a connection and returns its key. Ready
// sockets take turns: the kernel moves the one that it has reported behind the
// others.
func (l *Listener) readyKey() (key int, err error) {
	var events [1]unix.EpollEvent
	var n int
	var waitErr error
	// The function returns false only after an empty epollWait, because the
	// runtime's poller is edge-triggered.
	err = l.conn.Read(func(fd uintptr) bool {
		n, waitErr = epollWait(int(fd), events[:])
		return n > 0 || waitErr != nil
	})
	if err == nil {
		err = os.NewSyscallError("epoll_wait", waitErr)
	}
	return int(events[0].Fd), err
}

func epollWait(epfd int, events []unix.EpollEvent) (int, error) {
	for {
		n, err := unix.EpollWait(epfd, events, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// closedOr returns net.ErrClosed after Close, as listeners of package net do,
// or else err.
func (l *Listener) closedOr(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets == nil {
		return net.ErrClosed
	}
	return err
}

// Close closes the descriptors of all sockets in this process. Blocked calls of
// Accept return net.ErrClosed. The manager still holds the sockets and their
// queued connections.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets == nil {
		return &net.OpError{Op: "close", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
	for _, ln := range l.sockets {
		ln.Close()
	}
	l.sockets = nil
	return l.epoll.Close()
}

// Addr returns the *net.TCPAddr that all sockets listen on.
func (l *Listener) Addr() net.Addr { return l.addr }

// SetDeadline sets the time after which calls of Accept, including blocked
// ones, fail with os.ErrDeadlineExceeded. The zero time means no deadline.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if len(l.sockets) == 1 {
		l.sockets[ownKey].SetDeadline(t)
	}
	return l.epoll.SetReadDeadline(t)
}

// SyscallConn returns a descriptor that is readable while a connection is
// queued on any of the sockets. It is not a socket and should only be polled.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.conn, nil }
