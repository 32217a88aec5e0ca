package reaper

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func pointer(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// A Link is a manager's end of the socket to its reaper.
type Link struct {
	pid  int
	file *os.File
	fd   int
}

// Join returns the Link for the socket at descriptor fd. It fails if fd is not
// a socket to process pid, which is then not the reaper of this process.
func Join(pid, fd int) (*Link, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if int(peer.Pid) != pid {
		return nil, fmt.Errorf("descriptor %d is a socket to process %d, not to %d", fd, peer.Pid, pid)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return &Link{pid: pid, fd: fd, file: os.NewFile(uintptr(fd), "prefork reaper socket")}, nil
}

// PID returns the process ID of the reaper.
func (l *Link) PID() int { return l.pid }

// FD returns the descriptor of the socket, which a successor inherits.
func (l *Link) FD() int { return l.fd }

// Wait blocks until the reaper has exited. The manager should then stop,
// because no process forwards signals to it any more.
func (l *Link) Wait() { io.Copy(io.Discard, l.file) }

// ReportSuccessor reports to the reaper that the child pid has taken over from
// this manager.
func (l *Link) ReportSuccessor(pid int) { l.send(message{pid: pid}) }

// ReportExit reports to the reaper that this manager has reaped a successor.
// The code is its exit code; sig is the signal that killed it, or 0.
func (l *Link) ReportExit(pid, code int, sig syscall.Signal) {
	if sig != 0 {
		code = 128 + int(sig)
	}
	l.send(message{ended: true, pid: pid, code: code & 0xff})
}

// send does not block. It fails if the reaper has exited, which Wait detects.
func (l *Link) send(m message) {
	for {
		if err := unix.Sendto(l.fd, []byte(m.String()), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil); err != unix.EINTR {
			return
		}
	}
}
