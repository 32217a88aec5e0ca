package pidfile

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
)

// A nameLock is the lock on a path as a name, whichever file it leads to: an
// abstract unix socket, which the kernel frees with its last process. While the
// pid file is removed, or the path of its directory leads elsewhere, the file
// alone would let a second process in before the holder notices.
//
// The address depends on the mount namespace and the root directory, because the
// same path names another file in another container. Abstract addresses belong
// to the network namespace: processes in different ones do not see each other's
// name locks.
type nameLock struct {
	ln   *net.UnixListener
	file *os.File // for a successor
}

// nameInUseError is returned while another process holds the lock on a name.
type nameInUseError struct{ pid int }

func (e *nameInUseError) Error() string {
	return fmt.Sprintf("the name is in use by process %d", e.pid)
}

func nameAddress(path string) *net.UnixAddr {
	var root, mounts unix.Stat_t
	unix.Stat("/", &root)
	unix.Stat("/proc/self/ns/mnt", &mounts) // zero without /proc
	h := fnv.New128a()
	fmt.Fprintf(h, "%d:%d %d %s", root.Dev, root.Ino, mounts.Ino, path)
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@prefork-lock-%x", h.Sum(nil))}
}

// lockName locks a name. It returns nil without an error if the system refuses,
// or if a process of another user has the address: any user can bind it, and
// must not be able to keep a service from starting.
func lockName(path string) (*nameLock, error) {
	address := nameAddress(path)
	ln, err := net.ListenUnix("unix", address)
	if errors.Is(err, unix.EADDRINUSE) {
		pid, uid, err := peer(address)
		if err != nil || uid == 0 || uid == os.Geteuid() {
			return nil, &nameInUseError{pid}
		}
		return nil, nil
	}
	if err != nil {
		return nil, nil
	}
	file, err := ln.File()
	if err != nil {
		ln.Close()
		return nil, nil
	}
	return newNameLock(ln, file), nil
}

// adoptName returns the lock that another process has passed on.
func adoptName(f *os.File) (*nameLock, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	unixLn, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, errors.New("not a unix socket")
	}
	return newNameLock(unixLn, f), nil
}

func newNameLock(ln *net.UnixListener, file *os.File) *nameLock {
	go func() { // connections of processes that ask who holds the name
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.Close()
			}
		}
	}()
	return &nameLock{ln, file}
}

// claim makes this process the one that others see as the holder.
func (l *nameLock) claim() {
	if l == nil {
		return
	}
	if raw, err := fd.Raw(l.file); err == nil {
		unix.Listen(int(raw), unix.SOMAXCONN) // sets the credentials that peers get
	}
}

func (l *nameLock) handle() *os.File {
	if l == nil {
		return nil
	}
	return l.file
}

func (l *nameLock) close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.ln.Close(), l.file.Close())
}

// peer returns the process that listens on an address, and its user.
func peer(address *net.UnixAddr) (pid, uid int, err error) {
	conn, err := net.DialUnix("unix", nil, address)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err == nil {
		err = ctlErr
	}
	if err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// memoryFile returns a file without a name, which needs no disk.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("pid file", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
