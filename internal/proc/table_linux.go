package proc

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// New returns a Table that calls notify for what its processes have to say: by pidfd where the kernel has it (Linux
// 5.4) and nothing, such as an old seccomp filter, denies it; else the portable one.
func New(notify func(Note)) Table {
	t, err := newPidfdTable(notify)
	if err != nil {
		return newPortableTable(notify, err)
	}
	return t
}

// A pidfdTable watches all pidfds and control sockets through one epoll of its own, which in turn is watched by the
// runtime's poller. So a process costs two descriptors, and neither a goroutine nor a thread.
//
// Every descriptor is registered with EPOLLONESHOT: an event disarms it, and it stays silent until the owner has found
// nothing more to read, or nothing to reap yet, and arms it again.
type pidfdTable struct {
	notify  func(Note)
	epfd    int      // the number of epoll, which File.Fd is not asked for: it may change O_NONBLOCK
	epoll   *os.File // owns epfd
	ended   chan struct{}
	closed  bool
	spawner spawner
	groups  groups

	threadless bool // threads cannot be watched
}

func newPidfdTable(notify func(Note)) (*pidfdTable, error) {
	if err := probePidfd(); err != nil {
		return nil, err
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Only a descriptor that is non-blocking when os.NewFile sees it goes to the runtime's poller.
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	t := &pidfdTable{notify: notify, epfd: epfd, epoll: os.NewFile(uintptr(epfd), "epoll"), ended: make(chan struct{})}
	conn, err := t.epoll.SyscallConn()
	if err == nil {
		err = t.epoll.SetReadDeadline(time.Time{}) // fails where the poller did not take the descriptor
	}
	if err == nil {
		_, err = epollWait(epfd, make([]unix.EpollEvent, 1)) // a seccomp filter may know epoll_pwait alone
		err = os.NewSyscallError("epoll_wait", err)
	}
	if err != nil {
		t.epoll.Close()
		return nil, err
	}
	go t.watch(conn)
	return t, nil
}

// probePidfd tells what of the pidfd interface is missing. waitid on oneself must say ECHILD; EINVAL is a kernel older
// than 5.4.
func probePidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	var info unix.Siginfo
	if err := waitPidfd(fd, unix.WNOHANG, &info, nil); err != unix.ECHILD {
		return fmt.Errorf("waitid of a pidfd: %w", err)
	}
	return nil
}

func (t *pidfdTable) Name() string { return "pidfd" }

func (t *pidfdTable) Start(id uint64, spec Spec) (Process, error) {
	if t.closed {
		return nil, errClosed()
	}
	attr := sysProcAttr(spec)
	pidfd := -1
	attr.PidFD = &pidfd
	child, err := t.spawner.spawn(spec, attr)
	if err != nil {
		return nil, err
	}
	p := &pidfdProcess{t: t, id: id, pid: child.pid, pidfd: pidfd, control: child.control, tied: child.tied, group: spec.Group}
	if err := p.register(); err != nil {
		p.discard()
		return nil, err
	}
	return p, nil
}

func (t *pidfdTable) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.epoll.Close()
	<-t.ended
	t.spawner.close()
	return err
}

// watch turns events into notes until the table is closed.
func (t *pidfdTable) watch(conn syscall.RawConn) {
	defer close(t.ended)
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		var waitErr error
		// The runtime is told "not ready" only after an empty epollWait: its poller reports edges.
		err := conn.Read(func(fd uintptr) bool {
			n, waitErr = epollWait(int(fd), events)
			return n > 0 || waitErr != nil
		})
		if err != nil {
			return
		}
		if waitErr != nil {
			panic("proc: can't happen: epoll_wait: " + waitErr.Error())
		}
		for i := range n {
			t.notify(noteOf(&events[i]))
		}
	}
}

func epollWait(epfd int, events []unix.EpollEvent) (int, error) {
	for {
		n, err := unix.EpollWait(epfd, events, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// event returns the registration of what note is about. Its 64 bits of data hold the id, so that an event still under
// way when its descriptor was closed never names the process that was given the same descriptor number.
func event(note Note) *unix.EpollEvent {
	token := note.ID<<2 | uint64(note.Kind-Readable)
	ev := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	if note.Kind == Readable {
		ev.Events |= unix.EPOLLRDHUP
	}
	return ev
}

func noteOf(ev *unix.EpollEvent) Note {
	token := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
	return Note{ID: token >> 2, Kind: Readable + Kind(token&3)}
}
