//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// File is a pid file whose lock this process holds.
type File struct {
	path string
	f    *os.File
}

// Acquire locks the file at the path and writes this process's pid into it. It
// creates the file if necessary. It returns a *HeldError if another process
// holds the lock.
//
// Acquire reuses a file that a dead process has left behind. It removes a file
// of another user if it is permitted to, because the owner could write to it.
func Acquire(path string) (*File, error) {
	end := time.Now().Add(2 * holderTimeout)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		f, err := tryAcquire(path)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, errReplaced) && !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		case time.Now().After(end):
			return nil, err
		}
		// A reader holds the shared lock of Holder, or the holder has just
		// released the file.
		time.Sleep(pause)
	}
}

func tryAcquire(path string) (*File, error) {
	f, st, err := open(path, unix.O_RDWR, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: file belongs to another user: "+
			"remove it if it is left over from an earlier run", err)
		return nil, heldOr(path, err)
	}
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, heldOr(path, &fs.PathError{Op: "flock", Path: path, Err: err})
	}
	p := &File{path: path, f: f}
	if err := p.secure(st); err != nil {
		f.Close()
		return nil, err
	}
	if err := p.Write(); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

// secure ensures that the locked file is the one at the path, and that no
// other user can write to it.
func (p *File) secure(st *unix.Stat_t) error {
	if !p.InPlace() {
		return &fs.PathError{Op: "lock", Path: p.path, Err: errReplaced}
	}
	if uid := uint32(os.Geteuid()); st.Uid != uid {
		// A process that waits for the lock of the removed file finds that
		// the file is no longer at the path, and tries again.
		if err := os.Remove(p.path); err != nil {
			return fmt.Errorf("%w: file belongs to user %d: remove it", err, st.Uid)
		}
		return &fs.PathError{Op: "lock", Path: p.path, Err: errReplaced}
	}
	if st.Mode&0o022 != 0 {
		return p.f.Chmod(0o644)
	}
	return nil
}

// heldOr returns a *HeldError if a process holds the lock, else err.
func heldOr(path string, err error) error {
	pid, held, holderErr := Holder(path)
	if held {
		return &HeldError{path, pid}
	}
	if holderErr != nil && !errors.Is(holderErr, errReplaced) {
		return fmt.Errorf("%w (lock holder unknown: %w)", err, holderErr)
	}
	return err
}

// Adopt returns the File for an open file that another process has locked and
// passed to this one. It does not write to the file.
func Adopt(path string, f *os.File) (*File, error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	if !InPlace(f, path) {
		return nil, &fs.PathError{Op: "lock", Path: path, Err: errReplaced}
	}
	return &File{path: path, f: f}, nil
}

// File returns the open file, which carries the lock.
func (p *File) File() *os.File { return p.f }

// Write writes this process's pid. It overwrites the old content and then
// truncates the file, so that the first line is complete at any time.
func (p *File) Write() error {
	line := append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n')
	if _, err := p.f.WriteAt(line, 0); err != nil {
		return err
	}
	return p.f.Truncate(int64(len(line)))
}

// Touch sets the modification time of the file to now.
func (p *File) Touch() error {
	now := time.Now()
	tv := unix.NsecToTimeval(now.UnixNano())
	return os.NewSyscallError("futimes", unix.Futimes(int(p.f.Fd()), []unix.Timeval{tv, tv}))
}

// InPlace reports whether the path still names the file.
func (p *File) InPlace() bool { return InPlace(p.f, p.path) }

// Release empties and removes the file, and releases the lock. Processes that
// have the file open read no pid from then on.
func (p *File) Release() error {
	err := p.f.Truncate(0)
	if p.InPlace() {
		err = errors.Join(err, os.Remove(p.path))
	}
	return errors.Join(err, p.f.Close())
}

// Close closes the file without removing it. The lock remains with the
// process to which the open file was passed.
func (p *File) Close() error { return p.f.Close() }

// Read returns the pid in the file. It returns 0 if there is no file, or no
// pid in its first line.
func Read(path string) int {
	f, _, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	return readPID(f)
}

func readPID(f *os.File) int {
	buf := make([]byte, maxSize)
	n, _ := f.ReadAt(buf, 0)
	return parse(buf[:n])
}

// Holder reports whether a process holds the lock, and its pid. The pid is 0 if
// it is unknown: the process is in another PID namespace, or has not written
// its pid in time.
func Holder(path string) (pid int, held bool, err error) {
	f, st, err := open(path, unix.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	end := time.Now().Add(holderTimeout)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		// The kernel grants a shared lock only if no process holds the
		// exclusive one. A process that fails to acquire the exclusive lock
		// because of it tries again.
		if err := flock(f, unix.LOCK_SH); err == nil {
			return 0, false, flock(f, unix.LOCK_UN)
		} else if err != unix.EWOULDBLOCK {
			return 0, false, &fs.PathError{Op: "flock", Path: path, Err: err}
		}
		// The file may still contain the pid of the previous holder.
		if pid := readPID(f); pid > 0 && hasOpen(pid, st, f) {
			return pid, true, nil
		}
		if !InPlace(f, path) {
			return 0, false, nil // the holder is about to release the lock
		}
		if time.Now().After(end) {
			return 0, true, nil
		}
		time.Sleep(pause)
	}
}

// exists reports whether there is a process with this pid. EPERM means that it
// exists and belongs to another user.
func exists(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}
