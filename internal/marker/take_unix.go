//go:build unix

package marker

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Take reads, verifies and removes the marker of this process. It makes the
// descriptors in the marker close-on-exec, so that no process that this one
// starts gets any of them. It must be called once, at the start of the process.
func Take() (Marker, Role, error) {
	worker, isWorker := takeEnv(Env)
	successor, isSuccessor := takeEnv(SuccessorEnv)
	if isWorker { // first: a process with a worker's marker must never become a manager by mistake
		if m, role, err := takeWorker(worker); role != Ordinary {
			return m, role, err
		}
	}
	if isSuccessor {
		return takeSuccessor(successor)
	}
	return Marker{}, Ordinary, nil
}

// readVar decodes a marker, from the file that its value refers to if it is long.
func readVar(name, value string) (Marker, error) {
	m, err := parseVar(name, value)
	if err != nil || m.Long == 0 {
		return m, err
	}
	text, err := readFile(m.Long)
	if err != nil {
		return Marker{}, fmt.Errorf("%s names descriptor %d, which has no marker: %w", name, m.Long, err)
	}
	long, err := parseVar(name, text)
	if err == nil && (long.Manager != m.Manager || long.Long != 0) {
		err = fmt.Errorf("%s names descriptor %d, which has the marker of another process", name, m.Long)
	}
	long.Long = m.Long
	return long, err
}

// maxFile limits the memory that a forged marker can cause.
const maxFile = 256 << 20

// readFile reads with pread, since the file offset is shared.
func readFile(descriptor int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFile {
		return "", unix.EINVAL
	}
	text := make([]byte, st.Size)
	for at := 0; at < len(text); {
		n, err := unix.Pread(descriptor, text[at:], int64(at))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", err
		case n == 0:
			return "", unix.EIO
		default:
			at += n
		}
	}
	return string(text), nil
}

func takeWorker(value string) (Marker, Role, error) {
	m, err := readVar(Env, value)
	if err != nil {
		return Marker{}, Damaged, err
	}
	switch relationTo(m) {
	case foreign:
		return Marker{}, Ordinary, nil
	case orphaned:
		return Marker{}, Damaged, fmt.Errorf("%s names manager %d, which is not the parent of this process: %w; unset %s to start the program by itself",
			Env, m.Manager, ErrGone, Env)
	}
	return adopt(m, Env, Worker)
}

// takeSuccessor ignores a marker for another process's successor: a manager may
// run there without one. If the manager has died, the process is its successor
// nevertheless, since it has the sockets.
func takeSuccessor(value string) (Marker, Role, error) {
	m, err := readVar(SuccessorEnv, value)
	if err != nil {
		return Marker{}, Damaged, err
	}
	if !isParent(m) && !atEnd(m.Control) && !isGone(m) {
		return Marker{}, Ordinary, nil
	}
	return adopt(m, SuccessorEnv, Successor)
}

// adopt checks and prepares the descriptors of a verified marker.
func adopt(m Marker, name string, role Role) (Marker, Role, error) {
	for _, fd := range m.FDs() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && fd == m.Exe && flags&unix.FD_CLOEXEC == 0 {
			// A close-on-exec descriptor was not inherited: the Go runtime owns it.
			unix.Close(fd)
			continue
		}
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		}
		if err != nil {
			return Marker{}, Damaged, fmt.Errorf("%s names descriptor %d, which is not open: %w", name, fd, err)
		}
	}
	if m.Exe = 0; m.Long != 0 {
		unix.Close(m.Long)
		m.Long = 0
	}
	if err := unix.SetNonblock(m.Control, true); err != nil {
		return Marker{}, Damaged, fmt.Errorf("control socket: %w", err)
	}
	return m, role, nil
}

// relation describes the process that wrote a marker.
type relation uint8

const (
	parent   relation = iota // it is the parent of this process
	foreign                  // it lives, and meant another process
	orphaned                 // it has ended, and may have meant this process
)

func relationTo(m Marker) relation {
	if isParent(m) {
		return parent
	}
	var b [1]byte
	n, _, err := unix.Recvfrom(m.Control, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	isOpen := n > 0 || err == unix.EAGAIN || err == unix.EINTR
	// A socket can stay open after the manager's death: a process that the manager
	// was starting has a copy until it executes its program.
	if isOpen && !isGone(m) {
		return foreign
	}
	return orphaned
}

// atEnd reports whether fd is a socket whose peer has closed it.
func atEnd(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil
}
