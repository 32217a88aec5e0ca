//go:build unix

package inherit

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Take reads, verifies and removes the marker of this process, and makes what it names close-on-exec, so that nothing
// that the process starts sees any of it. It is called once, at the start of the process.
func Take() (Marker, Role, error) {
	becomeCommand()
	worker, isWorker := takeEnv(Env)
	successor, isSuccessor := takeEnv(SuccessorEnv)
	if isWorker { // first: whatever else the environment holds, who carries this one is no manager by mistake
		if m, role, err := takeWorker(worker); role != Ordinary {
			return m, role, err
		}
	}
	if isSuccessor {
		return takeSuccessor(successor)
	}
	return Marker{}, Ordinary, nil
}

// TakeReaper reads and removes what the environment says of a reaper.
func TakeReaper() (value string, ok bool) { return takeEnv(ReaperEnv) }

// AddressedTo has the sockets that systemd has addressed to one process be those of this one, in whose place this one stands.
func AddressedTo(pid int) {
	if os.Getenv(ListenPIDEnv) == strconv.Itoa(pid) {
		os.Setenv(ListenPIDEnv, strconv.Itoa(os.Getpid()))
	}
}

func takeEnv(name string) (value string, ok bool) {
	if value, ok = os.LookupEnv(name); ok {
		os.Unsetenv(name)
	}
	return value, ok
}

func takeWorker(value string) (Marker, Role, error) {
	m, err := Parse(value)
	if err != nil {
		return Marker{}, Damaged, err
	}
	switch parentage(m) {
	case foreign:
		return Marker{}, Ordinary, nil
	case orphaned:
		return Marker{}, Damaged, fmt.Errorf("%s names manager %d, which is not the parent of this process: %w; unset %s to start the program by itself",
			Env, m.Manager, ErrGone, Env)
	}
	return adopt(m, Env, Worker)
}

// takeSuccessor leaves alone what another process's successor was meant to get: a manager by itself does no harm where one is meant
// to run. A successor whose manager has died meanwhile is one all the more: it has the sockets.
func takeSuccessor(value string) (Marker, Role, error) {
	m, err := ParseSuccessor(value)
	if err != nil {
		return Marker{}, Damaged, err
	}
	if !isParent(m) && !atEnd(m.Control) && !isGone(m) {
		return Marker{}, Ordinary, nil
	}
	return adopt(m, SuccessorEnv, Successor)
}

// adopt makes the descriptors of a verified marker this process's own.
func adopt(m Marker, name string, role Role) (Marker, Role, error) {
	for _, fd := range m.FDs() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && fd == m.Exe && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd) // close-on-exec it would not have been inherited: it would be one of Go's own
			continue
		}
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		}
		if err != nil {
			return Marker{}, Damaged, fmt.Errorf("%s names descriptor %d, which is not open: %w", name, fd, err)
		}
	}
	m.Exe = 0
	if err := unix.SetNonblock(m.Control, true); err != nil {
		return Marker{}, Damaged, fmt.Errorf("control socket: %w", err)
	}
	return m, role, nil
}

// What the process behind the control socket is to this one.
type relation uint8

const (
	parent   relation = iota // our parent wrote the marker
	foreign                  // another process's worker was meant
	orphaned                 // we were meant, or somebody long gone
)

func parentage(m Marker) relation {
	if isParent(m) {
		return parent
	}
	var b [1]byte
	n, _, err := unix.Recvfrom(m.Control, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if n > 0 || err == unix.EAGAIN || err == unix.EINTR {
		// The end of the socket can come late: what the manager was starting when it died has a copy until it runs its program.
		if !isGone(m) {
			return foreign
		}
	}
	return orphaned
}

// atEnd tells whether a descriptor is a socket whose other end is closed.
func atEnd(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil
}

// ReadBlob reads what NewBlob made. It reads with pread, since all workers of a generation share one file offset.
func ReadBlob(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("what the manager passed on: %w", err)
	}
	data := make([]byte, st.Size)
	for at := 0; at < len(data); {
		n, err := unix.Pread(fd, data[at:], int64(at))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, fmt.Errorf("what the manager passed on: %w", err)
		case n == 0:
			return nil, fmt.Errorf("what the manager passed on ends at byte %d of %d", at, len(data))
		default:
			at += n
		}
	}
	return data, nil
}

// NewBlob puts data where workers can read it, whatever its size: a socketpair holds some 200 KiB and would block the
// manager, the environment is neither large nor private.
func NewBlob(data []byte) (fd int, err error) {
	if fd, err = AnonymousFile(); err != nil {
		return -1, fmt.Errorf("to pass on %d bytes: %w", len(data), err)
	}
	for at := 0; at < len(data); {
		n, err := unix.Pwrite(fd, data[at:], int64(at))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("to pass on %d bytes: %w", len(data), err)
		}
		at += max(n, 0)
	}
	if err := seal(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("to pass on %d bytes: %w", len(data), err)
	}
	return fd, nil
}

// unlinkedFile is an anonymous file where there is no memfd.
func unlinkedFile() (int, error) {
	f, err := os.CreateTemp("", "prefork-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	cerr := conn.Control(func(raw uintptr) {
		fd, err = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0)
	})
	if cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// SetName gives this process the name that ps and top show. It is called while the process's first thread is the only
// one of its own, in the initialisation of a package.
func SetName(arg0 string) {
	name := arg0[strings.LastIndexByte(arg0, '/')+1:]
	setName(name)
}

// Alter makes the environment of a new process: base with extra added, the later of two equal names in force, without
// what base says of descriptors that the new process does not get, and no variable of this package's own but those
// given last.
func Alter(base, extra []string, own ...string) []string {
	env := make([]string, 0, len(base)+len(extra)+len(own))
	at := make(map[string]int, cap(env))
	for i, list := range [][]string{base, extra} {
		for _, kv := range list {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || strings.IndexByte(kv, 0) >= 0 {
				continue
			}
			switch name {
			case Env, SuccessorEnv, DepthEnv, CommandEnv, ReaperEnv:
				continue
			case StarterEnv, StarterGenerationEnv, ListenPIDEnv, ListenFDsEnv, ListenFDNamesEnv:
				if i == 0 {
					continue // a worker would look for the manager's descriptors among its own
				}
			}
			if i, ok := at[name]; ok {
				env[i] = kv
				continue
			}
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	return append(env, own...)
}

// IsStream tells whether a standard stream is open: one that was closed may have given its number to a file of the
// program's or of ours, and those are close-on-exec, as a stream never is.
func IsStream(fd uintptr) bool {
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// DupCloseOnExec duplicates a descriptor, to one that is no standard stream.
func DupCloseOnExec(fd uintptr) (int, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, firstFD)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return n, nil
}

// Exit ends this process at once, whatever state it is in: nothing of the program runs any more, and nothing that it
// waits for can delay it.
func Exit(code int) {
	syscall.Exit(code)
}

// Close closes a descriptor; processes that have inherited it keep it.
func Close(fd int) { unix.Close(fd) }

// CommandEnv names the program that a process is to become once it has put its own pid into LISTEN_PID, which the spawner
// cannot know: the pid of the spawner, a colon, a path. It is the step that a Command with Config.ListenFDs is started
// through.
const CommandEnv = "PREFORK_COMMAND"

// becomeCommand replaces this process by the Command, if its parent started it for that. From anybody else the variable
// is ignored, and in a process with another's privileges always.
func becomeCommand() {
	value, ok := os.LookupEnv(CommandEnv)
	if !ok {
		return
	}
	os.Unsetenv(CommandEnv)
	pid, path, ok := strings.Cut(value, ":")
	parent := os.Getppid() // 0 in a PID namespace of its own, which a hook may ask for
	if !ok || parent != 0 && pid != strconv.Itoa(parent) || os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return
	}
	os.Setenv(ListenPIDEnv, strconv.Itoa(os.Getpid()))
	err := syscall.Exec(path, os.Args, os.Environ())
	fmt.Fprintf(os.Stderr, "prefork: cannot run the command %s: %v\n", path, err)
	syscall.Exit(127)
}

// lockWait is how long LockDir waits. Who replaces a socket's file holds the lock for some milliseconds; any other program may
// have locked the directory for as long as it likes. lockPause is the time between two tries.
const (
	lockWait  = time.Second
	lockPause = 5 * time.Millisecond
)

// LockDir holds a lock on the directory of a path until unlock is called, against others who do so. It leaves nothing
// behind. While another holds it, it waits for a second, and then fails.
func LockDir(path string) (unlock func(), err error) {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY, 0) // a FIFO would wait
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { dir.Close() }, nil
		case err == unix.EINTR:
		case err == unix.EWOULDBLOCK && time.Since(began) < lockWait:
			time.Sleep(lockPause)
		case err == unix.EWOULDBLOCK:
			dir.Close()
			return nil, fmt.Errorf("another program holds a lock, by flock, on the directory %s", dir.Name())
		default:
			dir.Close()
			return nil, os.NewSyscallError("flock", err)
		}
	}
}

// SetBlocking puts a socket into blocking mode, or takes it out, for all who share it.
func SetBlocking(fd int, blocking bool) error {
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, !blocking))
}
