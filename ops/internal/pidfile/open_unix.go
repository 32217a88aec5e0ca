//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

func retryEINTR(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// rawFD returns the descriptor of a file, which is not in the runtime's poller.
func rawFD(f *os.File) int { return int(f.Fd()) }

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
		unix.Lstat(path, &named) == nil && safedir.SameFile(&opened, &named)
}

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
	h, err := holderOf(path)
	pid = h.pid
	if err != nil || pid == 0 {
		return 0, false, err
	}
	p, err := os.FindProcess(pid) // on Linux a pidfd, which cannot be recycled
	if err != nil {
		return pid, false, err
	}
	defer p.Release()
	if now, _ := holderOf(path); now != h {
		return pid, true, nil // the pid may belong to an unrelated process now
	}
	if h.byName && !isTrustedUser(h.user) && !hasUser(pid, uint32(h.user)) || !h.byName && !ownerMaySignal(path, pid) {
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
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenFile(filepath.Base(path), unix.O_RDWR|unix.O_APPEND, mode)
	if errors.Is(err, safedir.ErrReplaced) { // another process created it first
		f, err = dir.OpenFile(filepath.Base(path), unix.O_RDWR|unix.O_APPEND, 0)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(rawFD(f), &st); err == nil && (st.Uid != uint32(os.Geteuid()) && st.Uid != 0 || st.Mode&0o002 != 0) {
		err = fmt.Errorf("file belongs to user %d with mode %#o, so others could write to it: "+
			"correct its owner and mode", st.Uid, st.Mode&0o777)
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}
