package pidfile

import (
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
type nameLock struct{ file *os.File }

// nameInUseError is returned while another process holds the lock on a name.
type nameInUseError struct {
	pid    int  // zero in another PID namespace
	silent bool // the process does not say who it is
}

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
	file, err := listenOn(address)
	if err != unix.EADDRINUSE {
		if err != nil {
			return nil, nil
		}
		return &nameLock{file}, nil
	}
	pid, uid, err := peer(address)
	if err != nil {
		return nil, &nameInUseError{silent: true}
	}
	if isTrustedUser(uid) {
		return nil, &nameInUseError{pid: pid}
	}
	return nil, nil
}

// isTrustedUser reports whether a lock on a name counts whoever can use the
// directory of its file.
func isTrustedUser(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// nameHolder reports whether a process holds the lock on a name, its pid, and the
// user that has requested the lock. The pid is 0 if it is unknown. Besides a
// trusted user it can be the owner of the directory, who could create a locked
// file in it as well.
func nameHolder(path string) (pid, user int, held bool) {
	address := nameAddress(path)
	pid, user, err := peer(address)
	if err != nil || !isTrustedUser(user) && !ownsDir(filepath.Dir(path), user) {
		return 0, 0, false
	}
	if !hasSocket(pid, address) {
		// The process has exited, and passed the lock on to one that has not
		// claimed it yet. Another process can have its pid by now.
		pid = 0
	}
	return pid, user, true
}

// ownsDir reports whether a directory belongs to a user, and not every user can
// create files in it.
func ownsDir(dir string, user int) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && int(st.Uid) == user && st.Mode&0o002 == 0
}

// hasSocket reports whether a process has the listening socket of an address
// open, as far as that can be seen.
func hasSocket(pid int, address *net.UnixAddr) bool {
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		// Num: RefCount Protocol Flags Type St Inode Path
		f := strings.Fields(line)
		if len(f) == 8 && f[7] == address.Name && f[3] == listening {
			return hasLink(pid, "socket:["+f[6]+"]")
		}
	}
	return false
}

// listening is the field Flags of a socket that accepts connections
// (__SO_ACCEPTCON). Sockets of accepted connections have the same path.
const listening = "00010000"

// hasLink reports whether a process has a file open that /proc shows as target.
func hasLink(pid int, target string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if to, err := os.Readlink(dir + "/" + name); err == nil && to == target {
			return true
		}
	}
	return false
}

// listenOn does not use package net, whose FileListener puts the socket into
// blocking mode for a moment, for all processes that share it.
func listenOn(address *net.UnixAddr) (*os.File, error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	sock, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(sock, &unix.SockaddrUnix{Name: address.Name}); err == nil {
		err = unix.Listen(sock, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(sock)
		return nil, err
	}
	return os.NewFile(uintptr(sock), address.Name), nil
}

// adoptName returns the lock that another process has passed on.
func adoptName(f *os.File) (*nameLock, error) { return &nameLock{f}, nil }

// claim makes this process the one that others see as the holder.
func (l *nameLock) claim() {
	if l == nil {
		return
	}
	if raw, err := fd.Raw(l.file); err == nil {
		unix.Listen(int(raw), unix.SOMAXCONN) // sets the credentials that peers get
	}
}

// answer takes the connections of processes that have asked for the holder. The
// kernel has answered them; they would fill the queue.
func (l *nameLock) answer() {
	if l == nil {
		return
	}
	raw, err := fd.Raw(l.file)
	for err == nil {
		var conn int
		if conn, _, err = unix.Accept4(int(raw), unix.SOCK_CLOEXEC); err == nil {
			unix.Close(conn)
		}
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
	return l.file.Close()
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

// replace makes the descriptor of a file one of another file, in one step.
func replace(old, by *os.File) error {
	_, err := retryEINTR(func() (int, error) { return 0, unix.Dup3(rawFD(by), rawFD(old), unix.O_CLOEXEC) })
	return os.NewSyscallError("dup3", err)
}
