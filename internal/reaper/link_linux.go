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

// A Link is a manager's socket to its reaper.
type Link struct {
	pid  int
	file *os.File
	fd   int
}

// Join makes a Link of descriptor fd. It fails where that is no socket to process pid, which then is no reaper of this
// process's.
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

// PID is the reaper's.
func (l *Link) PID() int { return l.pid }

// FD is the socket, for a successor.
func (l *Link) FD() int { return l.fd }

// Wait waits until the reaper is gone.
func (l *Link) Wait() { io.Copy(io.Discard, l.file) }

// Successor tells the reaper that a child of this manager has taken its place.
func (l *Link) Successor(pid int) { l.tell(message{pid: pid}) }

// Ended tells the reaper that this manager has waited for such a child. Status is that of wait4.
func (l *Link) Ended(pid, code int, sig syscall.Signal) {
	if sig != 0 {
		code = 128 + int(sig)
	}
	l.tell(message{ended: true, pid: pid, code: code & 0xff})
}

// tell does not wait. It fails where the reaper is gone, which Wait sees.
func (l *Link) tell(m message) {
	for {
		if err := unix.Sendto(l.fd, []byte(m.String()), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil); err != unix.EINTR {
			return
		}
	}
}
