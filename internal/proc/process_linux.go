package proc

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pidfdProcess and its descriptors belong to the owner of its table. A
// descriptor of -1 is closed or was never open.
type pidfdProcess struct {
	t       *pidfdTable
	id      uint64
	pid     int
	pidfd   int
	control int
	tied    bool
	group   bool // Spec.Group
	reaped  bool // pidfd is open only for leftover processes
	threads []int
}

func (p *pidfdProcess) Pid() int { return p.pid }

func (p *pidfdProcess) Signal(sig syscall.Signal) error {
	if p.pidfd < 0 || p.reaped {
		return nil
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if err == unix.ESRCH {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

func (p *pidfdProcess) Read(b []byte) (int, error) {
	if p.control < 0 {
		return 0, io.EOF
	}
	n, err := readControl(p.control, b)
	switch {
	case err == ErrWouldBlock:
		p.arm(p.control, Readable)
	case err != nil:
		closeFd(&p.control)
	}
	return n, err
}

func (p *pidfdProcess) Write(b []byte) (int, error) {
	if p.control < 0 {
		return 0, os.NewSyscallError("sendmsg", unix.EPIPE)
	}
	return writeControl(p.control, b)
}

func (p *pidfdProcess) WriteFile(b []byte, fd int) error {
	if p.control < 0 {
		return os.NewSyscallError("sendmsg", unix.EPIPE)
	}
	return writeControlFile(p.control, b, fd)
}

func (p *pidfdProcess) Reap() (Status, *syscall.Rusage, bool) {
	if p.pidfd < 0 || p.reaped {
		return Status{Unknown: true}, nil, true
	}
	p.killGroup()
	var info unix.Siginfo
	var usage unix.Rusage
	err := waitPidfd(p.pidfd, unix.WNOHANG, &info, &usage)
	if err == nil && info.Signo == 0 {
		p.arm(p.pidfd, Exited)
		return Status{}, nil, false
	}
	p.reaped = true
	p.ReapLeftovers()
	p.freeLeader()
	if err != nil { // ECHILD
		return Status{Unknown: true}, nil, true
	}
	return statusOf(&info), (*syscall.Rusage)(unsafe.Pointer(&usage)), true
}

// register adds the process to the table's epoll.
func (p *pidfdProcess) register() error {
	if p.pidfd < 0 {
		// Only emulations of Linux have pidfd_open and ignore CLONE_PIDFD. The
		// process is a child that was not waited for, so its pid is still its
		// own.
		fd, err := unix.PidfdOpen(p.pid, 0)
		if err != nil {
			return os.NewSyscallError("pidfd_open", err)
		}
		p.pidfd = fd
	}
	if err := p.epollCtl(unix.EPOLL_CTL_ADD, p.pidfd, Exited); err != nil {
		return err
	}
	if p.control < 0 {
		return nil
	}
	return p.epollCtl(unix.EPOLL_CTL_ADD, p.control, Readable)
}

// discard kills and frees a process that cannot be watched.
func (p *pidfdProcess) discard() {
	if p.pidfd < 0 {
		syscall.Kill(p.pid, syscall.SIGKILL)
		for {
			if _, err := syscall.Wait4(p.pid, nil, 0, nil); err != syscall.EINTR {
				break
			}
		}
	} else {
		p.Signal(syscall.SIGKILL)
		waitPidfd(p.pidfd, 0, new(unix.Siginfo), nil)
	}
	closeFd(&p.pidfd)
	p.freeLeader()
}

// freeLeader frees everything except the pidfd, which serves leftover
// processes. Closing a descriptor removes it from the epoll. An open pidfd
// stays in it and can cause one more note for the reaped process.
func (p *pidfdProcess) freeLeader() {
	closeFd(&p.control)
	p.UnwatchExit()
	p.t.spawner.release(p.tied)
	p.tied = false
}

// arm requests one more note. The kernel checks the descriptor at that moment,
// so a change since the owner's last check is not missed. Unlike a
// registration, it cannot fail for lack of memory.
func (p *pidfdProcess) arm(fd int, kind Kind) {
	if p.t.closed.Load() {
		return
	}
	if err := p.epollCtl(unix.EPOLL_CTL_MOD, fd, kind); err != nil {
		panic("proc: can't happen: arm: " + err.Error())
	}
}

func (p *pidfdProcess) epollCtl(op, fd int, kind Kind) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.t.epfd, op, fd, event(Note{p.id, kind})))
}

func closeFd(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// waitPidfd waits for the exit of a child. With WNOHANG, info.Signo is 0 if the
// child has not exited.
func waitPidfd(pidfd, options int, info *unix.Siginfo, usage *unix.Rusage) error {
	return waitid(unix.P_PIDFD, pidfd, options, info, usage)
}

func waitid(kind, id, options int, info *unix.Siginfo, usage *unix.Rusage) error {
	for {
		err := unix.Waitid(kind, id, info, unix.WEXITED|options, usage)
		if err != unix.EINTR {
			return err
		}
	}
}

// The codes of a SIGCHLD (bits/siginfo-consts.h), which x/sys does not define.
const (
	cldExited = 1
	cldDumped = 3
)

// childField reads a field of the siginfo of a child that exited. The fields
// si_pid, si_uid and si_status are in a union after three words, aligned like a
// pointer. The order of the three words depends on the architecture, but x/sys
// names them.
func childField(info *unix.Siginfo, i uintptr) int32 {
	const (
		ptr   = unsafe.Sizeof(uintptr(0))
		union = (3*4 + ptr - 1) &^ (ptr - 1)
	)
	return *(*int32)(unsafe.Add(unsafe.Pointer(info), union+i*4))
}

func pidOf(info *unix.Siginfo) int { return int(childField(info, 0)) }

func statusOf(info *unix.Siginfo) Status {
	status := childField(info, 2)
	if info.Code == cldExited {
		return Status{Code: int(status)}
	}
	return Status{Signal: syscall.Signal(status), CoreDump: info.Code == cldDumped}
}
