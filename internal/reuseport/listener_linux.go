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

// ownKey is the key of the slot's own socket; those of adopted ones are not negative.
const ownKey = -1

// patience is how long Accept stays with one of several sockets that was ready a moment ago. Another process can be faster:
// two workers share a socket while one replaces the other, or while one drops it that the other has adopted.
const patience = 2 * time.Millisecond

// A Listener accepts from the socket of a slot and from those that were adopted. Worker; its methods may be called by any
// goroutine.
//
// While it has its own socket alone, Accept is that of package net. With more, all are in one epoll, which is itself
// watched by the runtime's poller. Either way a connection leaves the kernel's queue only inside Accept: what nobody has
// asked for yet can be accepted by another worker.
type Listener struct {
	addr  net.Addr
	epfd  int      // the number of epoll, which File.Fd is not asked for: it may change O_NONBLOCK
	epoll *os.File // owns epfd
	conn  syscall.RawConn

	mu       sync.Mutex
	awaits   bool                     // its slot's own socket is still to come
	sockets  map[int]*net.TCPListener // by key, also the slot's own; nil once closed
	deadline time.Time                // that the program set
}

// NewListener makes a Listener of a slot's own socket. It takes fd over, also when it fails.
func NewListener(fd int) (*Listener, error) {
	l := &Listener{sockets: make(map[int]*net.TCPListener)}
	if err := l.open(); err != nil {
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

// AwaitListener makes a Listener of a worker that has no slot yet, with the address of fd, which it takes over, also when it
// fails, and lets go of: that is not the worker's to accept from. Until Own, Accept panics.
func AwaitListener(fd int) (*Listener, error) {
	l, err := NewListener(fd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(ownKey)
	l.awaits = true
	return l, nil
}

// Own gives a Listener that awaits it its slot's own socket. It takes fd over, also when it fails; once the Listener is
// closed, it fails with net.ErrClosed.
func (l *Listener) Own(fd int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sockets == nil:
		unix.Close(fd)
		return net.ErrClosed
	case !l.awaits:
		unix.Close(fd)
		return unix.EEXIST
	}
	if err := l.add(ownKey, fd); err != nil {
		return err
	}
	l.awaits = false
	return l.sockets[ownKey].SetDeadline(l.deadline)
}

// open makes the epoll.
func (l *Listener) open() (err error) {
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// Only a descriptor that is non-blocking when os.NewFile sees it goes to the runtime's poller.
	if err := unix.SetNonblock(l.epfd, true); err != nil {
		unix.Close(l.epfd)
		return os.NewSyscallError("fcntl", err)
	}
	l.epoll = os.NewFile(uintptr(l.epfd), "epoll")
	l.conn, err = l.epoll.SyscallConn()
	if err == nil {
		err = l.epoll.SetReadDeadline(time.Time{}) // fails where the poller did not take the descriptor
	}
	if err != nil {
		l.epoll.Close()
	}
	return err
}

// add takes fd over, also when it fails. The caller holds mu.
func (l *Listener) add(key, fd int) error {
	file := os.NewFile(uintptr(fd), "socket")
	if file == nil {
		return os.NewSyscallError("fcntl", unix.EBADF)
	}
	defer file.Close()
	generic, err := net.FileListener(file) // has a duplicate
	if err != nil {
		return err
	}
	ln, ok := generic.(*net.TCPListener)
	if !ok {
		generic.Close()
		return fmt.Errorf("a %s socket among those of a TCP listener: %w", generic.Addr().Network(), errors.ErrUnsupported)
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

// Adopt makes Accept take connections also from the socket fd, under a key that is not negative and not in use. It takes
// fd over, also when it fails; once the Listener is closed, it fails with net.ErrClosed.
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
			l.sockets[ownKey].SetDeadline(time.Unix(1, 0)) // wakes an Accept that waits for this one alone
		}
		return nil
	}
	unix.Close(fd)
	return fmt.Errorf("adopt socket %d: %w", key, err)
}

// Drop ends what Adopt began. What is still queued on the socket is for others; a key that is not there is ignored.
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

// remove lets go of a socket. The caller holds mu.
func (l *Listener) remove(key int) {
	ln := l.sockets[key]
	delete(l.sockets, key)
	// The kernel would forget the socket only with its last descriptor, and the manager has one.
	if err := l.epollCtl(unix.EPOLL_CTL_DEL, ln, key); err != nil {
		panic("reuseport: can't happen: " + err.Error())
	}
	ln.Close()
}

// Accept waits for a connection on any of the sockets, and returns it as a *net.TCPConn.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		ln, err := l.next()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: err}
		}
		conn, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed): // or dropped
		case errors.Is(err, os.ErrDeadlineExceeded) && !l.expired(): // a deadline of our own
		default:
			return conn, err
		}
	}
}

// next returns a listener to accept from: the slot's own if there is no other, else one that has a connection.
func (l *Listener) next() (*net.TCPListener, error) {
	for {
		l.mu.Lock()
		closed, awaits, alone, own := l.sockets == nil, l.awaits, len(l.sockets) == 1, l.sockets[ownKey]
		l.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if awaits {
			panic("prefork: Accept on a listener of ListenPerWorker before Start has returned: a standby has no slot, and so no socket, until then")
		}
		if alone {
			return own, nil
		}
		key, err := l.wait()
		if err != nil {
			return nil, l.cause(err)
		}
		if ln := l.among(key); ln != nil {
			return ln, nil
		}
	}
}

// among returns the socket with that key, to be tried for no longer than patience if it is one of several; nil if there
// is none any more.
func (l *Listener) among(key int) *net.TCPListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.sockets[key]
	if ln != nil && len(l.sockets) > 1 {
		ln.SetDeadline(time.Now().Add(patience))
	}
	return ln
}

// expired tells whether the program's deadline has passed.
func (l *Listener) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.deadline.IsZero() && !time.Now().Before(l.deadline)
}

// wait returns the key of a socket with a connection. Where several have one, they take turns: the kernel puts the one
// that it told of behind the others.
func (l *Listener) wait() (key int, err error) {
	var events [1]unix.EpollEvent
	var n int
	var waitErr error
	// The runtime is told "not ready" only after an empty epollWait: its poller reports edges.
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

// cause is what a wait that failed means to those who know listeners of package net.
func (l *Listener) cause(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets == nil {
		return net.ErrClosed
	}
	return err
}

// Close wakes Accept with net.ErrClosed and closes this process's descriptors of all sockets. The manager goes on
// holding them, with what is queued there.
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

// Addr is the address that all sockets listen on, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// SetDeadline bounds calls of Accept, those that wait now as well: after t they fail with os.ErrDeadlineExceeded. The
// zero time is no deadline.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if len(l.sockets) == 1 {
		l.sockets[ownKey].SetDeadline(t)
	}
	return l.epoll.SetReadDeadline(t)
}

// SyscallConn gives a descriptor that is readable while a connection waits on any of the sockets. It is good for that
// alone: it is no socket.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.conn, nil }
