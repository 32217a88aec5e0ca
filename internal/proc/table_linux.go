package proc

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// New returns a Table that calls notify for each change in its processes. It
// uses pidfds if the kernel has them (Linux 5.4) and no seccomp filter refuses
// them. Otherwise it returns the portable table.
func New(notify func(Note)) Table {
	t, err := newPidfdTable(notify)
	if err != nil {
		return newPortableTable(notify, err)
	}
	return t
}

// A pidfdTable watches all pidfds and control sockets through its own epoll,
// which the runtime's poller watches. A process takes two descriptors, and
// neither a goroutine nor a thread.
//
// Every descriptor is registered with EPOLLONESHOT: an event disarms it. The
// owner arms it again when there is nothing more to read or nothing to reap.
type pidfdTable struct {
	notify  func(Note)
	epfd    int           // descriptor of epoll; File.Fd may change O_NONBLOCK
	epoll   *os.File      // owns epfd
	done    chan struct{} // closed when watch has returned
	closed  atomic.Bool
	spawner spawner
	groups  groups

	threadless  atomic.Bool // the kernel has no pidfds of threads
	cloneFlag   atomic.Bool // a process was started with CLONE_PIDFD
	noCloneFlag atomic.Bool // that flag is refused, and pidfd_open takes its place
}

func newPidfdTable(notify func(Note)) (*pidfdTable, error) {
	if err := probePidfd(); err != nil {
		return nil, err
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// os.NewFile adds a descriptor to the runtime's poller only if it is
	// non-blocking.
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	t := &pidfdTable{notify: notify, epfd: epfd, epoll: os.NewFile(uintptr(epfd), "epoll"), done: make(chan struct{})}
	conn, err := t.epoll.SyscallConn()
	if err == nil {
		err = t.epoll.SetReadDeadline(time.Time{}) // fails if the poller refused the descriptor
	}
	if err == nil {
		// A seccomp filter may allow only epoll_pwait.
		_, err = epollWait(epfd, make([]unix.EpollEvent, 1))
		err = os.NewSyscallError("epoll_wait", err)
	}
	if err != nil {
		t.epoll.Close()
		return nil, err
	}
	go t.watch(conn)
	return t, nil
}

// probePidfd returns an error if part of the pidfd interface is missing. waitid
// on the process itself must return ECHILD; EINVAL means a kernel before 5.4.
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
	if t.closed.Load() {
		return nil, errClosed()
	}
	attr := sysProcAttr(spec)
	pidfd := -1
	if !t.noCloneFlag.Load() {
		attr.PidFD = &pidfd
	}
	child, err := t.spawner.spawn(spec, attr)
	if err != nil && !t.cloneFlag.Load() && mayBeRefusal(err) {
		// qemu-user refuses CLONE_PIDFD with EINVAL, and filters choose other
		// numbers. The errno does not show whether clone or execve returned it.
		attr.PidFD = nil
		if child, err = t.spawner.spawn(spec, attr); err == nil {
			t.noCloneFlag.Store(true)
		}
	}
	if err != nil {
		return nil, err
	}
	if attr.PidFD != nil {
		t.cloneFlag.Store(true)
	}
	p := &pidfdProcess{t: t, id: id, pid: child.pid, pidfd: pidfd, control: child.control, tied: child.tied, group: spec.Group}
	if err := p.register(); err != nil {
		p.discard()
		return nil, err
	}
	return p, nil
}

// mayBeRefusal reports whether an error of a start can mean that the kernel or a
// filter refuses CLONE_PIDFD: it is no lack of memory, descriptors or processes.
func mayBeRefusal(err error) bool {
	for _, shortage := range []error{unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR} {
		if errors.Is(err, shortage) {
			return false
		}
	}
	return true
}

func (t *pidfdTable) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	err := t.epoll.Close()
	<-t.done
	t.spawner.close()
	return err
}

// watch turns events into notes until the table is closed.
func (t *pidfdTable) watch(conn syscall.RawConn) {
	defer close(t.done)
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		var waitErr error
		// The poller is edge-triggered, so the function must not return false
		// before epollWait has returned nothing.
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

// event returns the registration by which epoll reports note. Its 64 bits of
// data hold the id and not a descriptor: the number of a closed descriptor can
// belong to another process when the event arrives.
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
