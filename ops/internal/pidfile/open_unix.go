//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// open opens a file in a directory that other users may be able to write to.
// It does not follow symbolic links and does not block on a FIFO. It accepts
// only regular files with one link. It creates a missing file if mode is not
// zero.
func open(path string, flags int, mode uint32) (*os.File, *unix.Stat_t, error) {
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retryEINTR(func() (int, error) { return unix.Open(path, flags, 0) })
	if err == unix.ENOENT && mode != 0 {
		// A second call, because some kernels refuse O_CREAT on another
		// user's file in a sticky directory (fs.protected_regular). O_EXCL
		// also refuses a dangling symbolic link.
		fd, err = retryEINTR(func() (int, error) {
			return unix.Open(path, flags|unix.O_CREAT|unix.O_EXCL, mode)
		})
		if err == unix.EEXIST {
			err = errReplaced
		}
	}
	if err == unix.ELOOP || err == unix.EMLINK {
		err = errors.New("symbolic link, which is not followed: remove it")
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
		return errors.New("not a regular file: remove it")
	case st.Nlink == 0:
		return errReplaced
	case st.Nlink > 1:
		return errors.New("file has other names (hard links): remove it")
	}
	return nil
}

func retryEINTR(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

func flock(f *os.File, how int) error {
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	})
	return err
}

// InPlace reports whether the path names the open file.
func InPlace(f *os.File, path string) bool {
	var opened, named unix.Stat_t
	return unix.Fstat(int(f.Fd()), &opened) == nil &&
		unix.Lstat(path, &named) == nil && sameFile(&opened, &named)
}

func sameFile(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// Signal sends a signal to the process that holds the lock on the file, and
// returns its pid. The pid is 0 if no process holds the lock, or if the holder
// is in another PID namespace.
//
// A file that belongs neither to this user nor to root may be a trap: its owner
// can write any pid, and pass the open file to that process. Signal therefore
// signals only processes that the owner of the file could signal.
func Signal(path string, sig os.Signal) (pid int, err error) {
	for range 10 {
		pid, retry, err := trySignal(path, sig)
		if !retry {
			return pid, err
		}
	}
	return 0, nil
}

// trySignal is one attempt of Signal. retry is true if the holder has exited
// since.
func trySignal(path string, sig os.Signal) (pid int, retry bool, err error) {
	pid, held, err := Holder(path)
	if err != nil || !held || pid == 0 {
		return 0, false, err
	}
	p, err := os.FindProcess(pid) // on Linux a pidfd, which cannot be recycled
	if err != nil {
		return pid, false, err
	}
	defer p.Release()
	if now, held, _ := Holder(path); !held || now != pid {
		return pid, true, nil // the pid may belong to an unrelated process now
	}
	if !ownerMaySignal(path, pid) {
		return pid, false, errors.New("pid file and process belong to different users: " +
			"find out who created the file")
	}
	err = p.Signal(sig)
	return pid, errors.Is(err, os.ErrProcessDone), err
}

func ownerMaySignal(path string, pid int) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	return Trusted(info) || hasUser(pid, info.Sys().(*syscall.Stat_t).Uid)
}

// CheckDir returns an error if pid files cannot be created safely in a
// directory. It reports whether every user may create files in it.
func CheckDir(dir string) (worldWritable bool, err error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is not a directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return false, fmt.Errorf("directory %s cannot be written: %w", dir, err)
	}
	worldWritable = isWorldWritable(info)
	if worldWritable && info.Mode()&fs.ModeSticky == 0 {
		return true, fmt.Errorf("directory %s lets every user remove the files of others: "+
			"use another directory, or chmod o-w or +t", dir)
	}
	return worldWritable, nil
}

func isWorldWritable(dir fs.FileInfo) bool { return dir.Mode().Perm()&0o002 != 0 }

// WorldWritable reports whether every user may create files in a directory. It
// returns true if the directory cannot be examined.
func WorldWritable(dir string) bool {
	info, err := os.Stat(dir)
	return err != nil || isWorldWritable(info)
}

// Trusted reports whether a file belongs to this user or to root, and was put
// there by one of them. Any user can link an existing regular file into a
// directory, so a file with several hard links is not trusted.
func Trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || st.Uid == uint32(os.Geteuid())) &&
		(st.Nlink <= 1 || !info.Mode().IsRegular())
}

// OpenAppend opens a file for reading and appending, with the precautions that
// Acquire takes. It creates the file with this mode if necessary. The file must
// belong to this user or to root, and must not be writable by others.
func OpenAppend(path string, mode uint32) (*os.File, error) {
	f, st, err := open(path, unix.O_RDWR|unix.O_APPEND, mode)
	if errors.Is(err, errReplaced) { // another process created it first
		f, st, err = open(path, unix.O_RDWR|unix.O_APPEND, 0)
	}
	if err != nil {
		return nil, err
	}
	if st.Uid != uint32(os.Geteuid()) && st.Uid != 0 || st.Mode&0o002 != 0 {
		f.Close()
		err = fmt.Errorf("file belongs to user %d with mode %#o, so others could write to it: "+
			"correct its owner and mode", st.Uid, st.Mode&0o777)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}
