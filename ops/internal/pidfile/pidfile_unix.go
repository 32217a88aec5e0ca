//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File is a pid file that this process holds.
type File struct {
	path string
	f    *os.File
}

// open opens a file of ours where others may write too: no symbolic link is followed, a pipe does not block, and what is no
// plain file with one name is refused. With a mode it is made if there is none.
func open(path string, flags int, mode uint32) (*os.File, *unix.Stat_t, error) {
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Open(path, flags, 0) })
	if err == unix.ENOENT && mode != 0 {
		// Not in one call: where the directory is sticky, some kernels refuse O_CREAT on a file of another user
		// (fs.protected_regular), and with O_EXCL a link that leads nowhere is not followed either.
		fd, err = retry(func() (int, error) { return unix.Open(path, flags|unix.O_CREAT|unix.O_EXCL, mode) })
		if err == unix.EEXIST {
			err = errChanged
		}
	}
	if err == unix.ELOOP || err == unix.EMLINK {
		err = errors.New("it is a symbolic link, which is not followed: remove it")
	}
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = checkKind(&st)
	}
	if err != nil {
		f.Close()
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, &st, nil
}

func checkKind(st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no plain file: remove it")
	case st.Nlink == 0:
		return errChanged
	case st.Nlink > 1:
		return errors.New("it has further names (hard links): remove it")
	}
	return nil
}

func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

func flock(f *os.File, how int) error {
	_, err := retry(func() (int, error) { return 0, unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
	return err
}

// InPlace tells whether an open file is the one at the path.
func InPlace(f *os.File, path string) bool { return isAt(f, path) }

// isAt tells whether the file is the one at the path.
func isAt(f *os.File, path string) bool {
	var here, there unix.Stat_t
	return unix.Fstat(int(f.Fd()), &here) == nil && unix.Lstat(path, &there) == nil && here.Dev == there.Dev && here.Ino == there.Ino
}

// Take locks the file at the path, makes it if there is none, and writes this process's pid into it. Where another process
// holds it, the error is a *HeldError. A file that a dead process has left behind is taken; one of another user is removed
// if that is allowed, since its owner could write into it.
func Take(path string) (*File, error) {
	end := time.Now().Add(2 * tellLimit)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		f, err := take(path)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, errChanged) && !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		case time.Now().After(end):
			return nil, err
		}
		// Somebody was looking, or has just let go.
		time.Sleep(pause)
	}
}

func take(path string) (*File, error) {
	f, st, err := open(path, unix.O_RDWR, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		return nil, orHeld(path, fmt.Errorf("%w: the file is another user's; if it is left from a former run, remove it", err))
	}
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, orHeld(path, &fs.PathError{Op: "flock", Path: path, Err: err})
	}
	p := &File{path: path, f: f}
	if err := p.own(st); err != nil {
		f.Close()
		return nil, err
	}
	if err := p.Write(); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

// own makes sure that the locked file is the one at the path, and that nobody else can write into it.
func (p *File) own(st *unix.Stat_t) error {
	if !isAt(p.f, p.path) {
		return &fs.PathError{Op: "lock", Path: p.path, Err: errChanged}
	}
	if uid := uint32(os.Geteuid()); st.Uid != uid {
		// Whoever still waits for the lock of that file finds that it is not at the path any more.
		if err := os.Remove(p.path); err != nil {
			return fmt.Errorf("%w: the file is left from user %d: remove it", err, st.Uid)
		}
		return &fs.PathError{Op: "lock", Path: p.path, Err: errChanged}
	}
	if st.Mode&0o022 != 0 {
		return p.f.Chmod(0o644)
	}
	return nil
}

// orHeld is a *HeldError if somebody holds the file, else err.
func orHeld(path string, err error) error {
	if pid, held, lookErr := Holder(path); held {
		return &HeldError{path, pid}
	} else if lookErr != nil && !errors.Is(lookErr, errChanged) {
		return fmt.Errorf("%w (who holds it cannot be told: %w)", err, lookErr)
	}
	return err
}

// Adopt makes a File of one that another process has locked and handed to this one. It does not write to it.
func Adopt(path string, f *os.File) (*File, error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	if !isAt(f, path) {
		return nil, &fs.PathError{Op: "lock", Path: path, Err: errChanged}
	}
	return &File{path: path, f: f}, nil
}

// File is the open file, which has the lock.
func (p *File) File() *os.File { return p.f }

// Write writes this process's pid. What was there is overwritten and then cut, so that the first line is whole at any time.
func (p *File) Write() error {
	line := append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n')
	if _, err := p.f.WriteAt(line, 0); err != nil {
		return err
	}
	return p.f.Truncate(int64(len(line)))
}

// Touch sets the time at which the file was changed.
func (p *File) Touch() error {
	now := time.Now()
	tv := unix.NsecToTimeval(now.UnixNano())
	return os.NewSyscallError("futimes", unix.Futimes(int(p.f.Fd()), []unix.Timeval{tv, tv}))
}

// InPlace tells whether the file is still at its path.
func (p *File) InPlace() bool { return isAt(p.f, p.path) }

// Release empties the file, for those who have it open, removes it, and lets go of the lock.
func (p *File) Release() error {
	err := p.f.Truncate(0)
	if isAt(p.f, p.path) {
		err = errors.Join(err, os.Remove(p.path))
	}
	return errors.Join(err, p.f.Close())
}

// Close lets go of the file and leaves it to whom this process has handed it.
func (p *File) Close() error { return p.f.Close() }

// Read is the pid that the file names; 0 if it names none.
func Read(path string) int {
	f, _, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	return read(f)
}

func read(f *os.File) int {
	buf := make([]byte, maxSize)
	n, _ := f.ReadAt(buf, 0)
	return parse(buf[:n])
}

// Holder tells whether a process holds the file, and which: 0 if it cannot be seen from here.
func Holder(path string) (pid int, held bool, err error) {
	f, st, err := open(path, unix.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errChanged) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	end := time.Now().Add(tellLimit)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		// A shared lock can be had if and only if nobody has the exclusive one. A starter that it gets in the way of tries again.
		if err := flock(f, unix.LOCK_SH); err == nil {
			return 0, false, flock(f, unix.LOCK_UN)
		} else if err != unix.EWOULDBLOCK {
			return 0, false, &fs.PathError{Op: "flock", Path: path, Err: err}
		}
		// The file may still name the one before.
		if pid := read(f); pid > 0 && Holds(pid, st, f) {
			return pid, true, nil
		}
		if !isAt(f, path) {
			return 0, false, nil // it is about to let go
		}
		if time.Now().After(end) {
			return 0, true, nil
		}
		time.Sleep(pause)
	}
}

// alive tells whether there is a process with this pid. One that may not be signalled (EPERM) is one too.
func alive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}

// Signal signals the process that holds the file; the pid is 0 if none does, or none that can be seen from here. What a file
// says that is neither this user's nor root's may be a trap: its owner can have sent the open file to a process of others. So
// only a process is signalled that the owner could signal too.
func Signal(path string, sig os.Signal) (pid int, err error) {
	for range 10 {
		pid, held, err := Holder(path)
		if err != nil || !held || pid == 0 {
			return 0, err
		}
		p, err := os.FindProcess(pid) // on Linux a pidfd, which stays with the process
		if err != nil {
			return pid, err
		}
		defer p.Release()
		if now, held, _ := Holder(path); !held || now != pid {
			continue // it has ended, and its pid may be that of a stranger
		}
		if !ownerMaySignal(path, pid) {
			return pid, errors.New("the pid file belongs to another user than the process: find out who has made it")
		}
		if err := p.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			return pid, err
		}
	}
	return 0, nil
}

func ownerMaySignal(path string, pid int) bool {
	info, err := os.Lstat(path)
	return err == nil && (Trusted(info) || hasUser(pid, info.Sys().(*syscall.Stat_t).Uid))
}

// CheckDir checks a directory for pid files, and tells whether every user may make files in it.
func CheckDir(dir string) (shared bool, err error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is no directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return false, fmt.Errorf("%s cannot be written to: %w", dir, err)
	}
	shared = isShared(info)
	if shared && info.Mode()&fs.ModeSticky == 0 {
		return shared, fmt.Errorf("%s lets every user remove the files of others: take another directory, or chmod o-w, or chmod +t", dir)
	}
	return shared, nil
}

func isShared(dir fs.FileInfo) bool { return dir.Mode().Perm()&0o002 != 0 }

// Shared tells whether every user may make files in a directory, or whether that cannot be told.
func Shared(dir string) bool {
	info, err := os.Stat(dir)
	return err != nil || isShared(info)
}

// Trusted tells whether a file is this user's or root's, and was put there by one of them: a plain file with further names
// (hard links) may have been linked there by anybody.
func Trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || st.Uid == uint32(os.Geteuid())) && (st.Nlink <= 1 || !info.Mode().IsRegular())
}

// OpenAppend opens a file of this user's to read and to append to it, with the same care. It is made with this mode if there
// is none.
func OpenAppend(path string, mode uint32) (*os.File, error) {
	f, st, err := open(path, unix.O_RDWR|unix.O_APPEND, mode)
	if errors.Is(err, errChanged) { // somebody has made it first
		f, st, err = open(path, unix.O_RDWR|unix.O_APPEND, 0)
	}
	if err != nil {
		return nil, err
	}
	if st.Uid != uint32(os.Geteuid()) && st.Uid != 0 || st.Mode&0o002 != 0 {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is user %d's with mode %#o: others could write into it", st.Uid, st.Mode&0o777)}
	}
	return f, nil
}
