//go:build unix && !solaris && !aix

package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

// File is a pid file whose lock this process holds. Its methods are not safe for
// concurrent use.
type File struct {
	path string       // absolute; its links may lead elsewhere later
	dir  *safedir.Dir // of f
	f    *os.File
	name *nameLock // nil if the system has none
}

// Acquire locks the file at the path, and the path as a name, and writes this
// process's pid into the file. It creates the file if necessary. It returns a
// *HeldError if another process holds one of the locks.
//
// Acquire reuses a file that a dead process has left behind. It removes a file
// of another user if it is permitted to, because the owner could write to it.
func Acquire(path string) (*File, error) { return acquire(path, false) }

// AcquireOnFullDisk is Acquire, except that the lock on the name suffices if the
// disk is full. Restore creates the file when there is room. On systems without
// that lock it is Acquire.
func AcquireOnFullDisk(path string) (*File, error) { return acquire(path, true) }

func acquire(path string, nameSuffices bool) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(acquireTimeout)
	lock := lockName
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		p, err := tryAcquire(path, lock, nameSuffices)
		var inUse *nameInUseError
		switch {
		case err == nil:
			return p, nil
		case !errors.Is(err, safedir.ErrReplaced) && !errors.Is(err, unix.EWOULDBLOCK) && !errors.As(err, &inUse):
			return nil, err
		case time.Now().Before(end):
			// A reader holds the shared lock of Holder, the holder has just
			// released the file, or has lost it without noticing yet.
			time.Sleep(pause)
		case inUse != nil && inUse.silent:
			// The kernel answers for a holder, unless thousands of processes
			// have asked since its last Restore. So the address belongs to a
			// process that only keeps others from it: the file alone counts.
			lock = func(string) (*nameLock, error) { return nil, nil }
			end = time.Now().Add(acquireTimeout)
		case inUse != nil:
			pid, _, _ := nameHolder(path)
			return nil, &HeldError{path, pid}
		default:
			return nil, err
		}
	}
}

func tryAcquire(path string, lock func(string) (*nameLock, error), nameSuffices bool) (*File, error) {
	name, err := lock(path)
	if err != nil {
		return nil, heldOr(path, err)
	}
	nameSuffices = nameSuffices && name != nil
	p := &File{path: path, name: name}
	p.dir, p.f, err = lockFile(path, nil)
	if nameSuffices && DiskFull(err) {
		p.dir, p.f, err = standIn(path)
	}
	if err != nil {
		name.close()
		return nil, err
	}
	if err := p.Write(); err != nil && !(nameSuffices && DiskFull(err)) {
		p.Release()
		return nil, err
	}
	return p, nil
}

// DiskFull reports whether an error means that there is no room on the disk, or
// no more for this user or process.
func DiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// standIn returns a locked file without a name for one that cannot be created.
func standIn(path string) (*safedir.Dir, *os.File, error) {
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	f, err := memoryFile(path)
	if err == nil {
		err = flock(f, unix.LOCK_EX)
	}
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	return dir, f, nil
}

// errOwnLock is returned by lockFile for the file that it is to replace.
var errOwnLock = errors.New("the file is the locked one")

// lockFile opens, creates if necessary, and locks the file at the path. own is the
// locked file that it shall replace, or nil.
func lockFile(path string, own *os.File) (dir *safedir.Dir, f *os.File, err error) {
	dir, err = safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	if f, err = lockFileIn(dir, filepath.Base(path), own); err != nil {
		dir.Close()
		if err != errOwnLock {
			err = heldOr(path, err)
		}
		return nil, nil, err
	}
	return dir, f, nil
}

func lockFileIn(dir *safedir.Dir, base string, own *os.File) (*os.File, error) {
	if err := dir.Unprotected(); err != nil {
		return nil, err
	}
	f, err := dir.OpenFile(base, unix.O_RDWR, 0o644)
	if err != nil {
		return nil, explain(dir, base, err)
	}
	if own != nil && isSame(own, f) {
		err = errOwnLock
	} else if err = flock(f, unix.LOCK_EX); err != nil {
		err = &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	} else {
		err = secure(dir, base, f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func isSame(a, b *os.File) bool {
	var x, y unix.Stat_t
	return unix.Fstat(rawFD(a), &x) == nil && unix.Fstat(rawFD(b), &y) == nil && safedir.SameFile(&x, &y)
}

// secure ensures that the locked file is the one with this name, and that no
// other user can write to it.
func secure(dir *safedir.Dir, base string, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(rawFD(f), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if !dir.Holds(base, f) {
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: safedir.ErrReplaced}
	}
	if st.Uid != uint32(os.Geteuid()) {
		// A process that waits for the lock of the removed file finds that
		// the file has no name any more, and tries again.
		if err := dir.Remove(base); err != nil {
			return fmt.Errorf("%w: file belongs to user %d: remove it", err, st.Uid)
		}
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: safedir.ErrReplaced}
	}
	if st.Mode&0o022 != 0 {
		return f.Chmod(0o644)
	}
	return nil
}

// explain adds to an error of opening a file how to mend it.
func explain(dir *safedir.Dir, base string, err error) error {
	st, statErr := dir.Lstat(base)
	if statErr != nil {
		return err
	}
	switch {
	case errors.Is(err, unix.EACCES) && st.Uid == uint32(os.Geteuid()):
		return fmt.Errorf("%w: file has mode %#o: chmod u+rw, or remove it", err, st.Mode&0o777)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: file belongs to user %d, mode %#o: "+
			"remove it if it is left over from an earlier run", err, st.Uid, st.Mode&0o777)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: file is immutable or append-only: chattr -i -a, and remove it", err)
	}
	return err
}

// heldOr returns a *HeldError if a process holds the lock on the file, else err.
func heldOr(path string, err error) error {
	if errors.Is(err, safedir.ErrReplaced) {
		return err
	}
	pid, held, holderErr := fileHolder(path)
	if held {
		return &HeldError{path, pid}
	}
	if holderErr != nil && !errors.Is(holderErr, safedir.ErrReplaced) && holderErr.Error() != err.Error() {
		return fmt.Errorf("%w (lock holder unknown: %w)", err, holderErr)
	}
	return err
}

// Adopt returns the File for an open file that another process has locked and
// passed to this one, with the lock on its name, or nil. It does not write to
// the file. With the lock on the name, the file may have been removed; Restore
// creates it again.
func Adopt(path string, f, name *os.File) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	p := &File{path: path, dir: dir, f: f}
	if name != nil {
		p.name, err = adoptName(name)
	}
	if err == nil && p.name == nil && !dir.Holds(filepath.Base(path), f) {
		err = &fs.PathError{Op: "lock", Path: path, Err: safedir.ErrReplaced}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return p, nil
}

// Name returns the socket that carries the lock on the name, or nil. A successor
// passes it to Adopt.
func (p *File) Name() *os.File { return p.name.handle() }

// Restore ensures that the path names a file with this process's pid that this
// process has locked. Otherwise a process that starts would not find the lock,
// and no process would find this one. The File that others have keeps its
// descriptor, which names the new file after Recreated.
//
// It returns a *HeldError if another process has locked the file at the path. In
// that case, and after other errors, the File remains as it was.
func (p *File) Restore() (Restored, error) {
	p.name.answer()
	if InPlace(p.f, p.path) {
		return p.rewrite()
	}
	dir, f, err := lockFile(p.path, p.f)
	if err == errOwnLock {
		return p.rewrite() // the path leads to it again
	}
	if err != nil {
		return Intact, err
	}
	next := File{path: p.path, dir: dir, f: f, name: p.name}
	if err = next.Write(); err == nil {
		// For a process that finds the old file by another path.
		p.f.Truncate(0)
		p.removeFile()
		// A worker may be spawned at any time with the descriptor that File
		// has returned, so it must neither be closed nor stand for another
		// file. The descriptor of f shares the lock.
		err = replace(p.f, f)
	}
	if err != nil {
		next.removeFile()
		return Intact, errors.Join(err, f.Close(), dir.Close())
	}
	f.Close()
	p.dir.Close()
	p.dir = dir
	return Recreated, nil
}

// File returns the open file, which carries the lock. It is the same one after each
// Restore, until Release or Close.
func (p *File) File() *os.File { return p.f }

// Write writes this process's pid. It overwrites the old content and then
// truncates the file, so that the first line is complete at any time.
func (p *File) Write() error {
	p.name.claim()
	line := pidLine()
	if _, err := p.f.WriteAt(line, 0); err != nil {
		return err
	}
	return p.f.Truncate(int64(len(line)))
}

func pidLine() []byte { return append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n') }

// Touch sets the modification time of the file to now.
func (p *File) Touch() error {
	now := time.Now()
	tv := unix.NsecToTimeval(now.UnixNano())
	return os.NewSyscallError("futimes", unix.Futimes(int(p.f.Fd()), []unix.Timeval{tv, tv}))
}

// InPlace reports whether the path still names the file.
func (p *File) InPlace() bool { return InPlace(p.f, p.path) }

// rewrite writes the pid again if the file has another content.
func (p *File) rewrite() (Restored, error) {
	if content(p.f) == string(pidLine()) {
		return Intact, nil
	}
	return Rewritten, p.Write()
}

// Release empties and removes the file, and releases the locks. Processes that
// have the file open read no pid from then on.
func (p *File) Release() error {
	// The name comes first. A process that sees the file removed may examine
	// the name at once.
	err := p.name.close()
	p.name = nil
	return errors.Join(err, p.f.Truncate(0), p.removeFile(), p.Close())
}

// removeFile removes the file, unless its name is that of another one.
func (p *File) removeFile() error {
	if base := filepath.Base(p.path); p.dir.Holds(base, p.f) {
		return p.dir.Remove(base)
	}
	return nil
}

// Close closes the file without removing it. The locks remain with the process
// to which they were passed.
func (p *File) Close() error {
	return errors.Join(p.f.Close(), p.dir.Close(), p.name.close())
}

// openForReading opens a pid file to examine it.
func openForReading(path string) (*os.File, error) {
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	base := filepath.Base(path)
	f, err := dir.OpenFile(base, unix.O_RDONLY, 0)
	if err != nil {
		return nil, explain(dir, base, err)
	}
	return f, nil
}

// Read returns the pid in the file. It returns 0 if there is no file, or no
// pid in its first line.
func Read(path string) int {
	f, err := openForReading(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return readPID(f)
}

func readPID(f *os.File) int { return parse([]byte(content(f))) }

func content(f *os.File) string {
	buf := make([]byte, maxSize)
	n, _ := f.ReadAt(buf, 0)
	return string(buf[:n])
}

// Holder reports whether a process holds the lock on the file or on its name, and
// its pid. The pid is 0 if it is unknown: the process is in another PID namespace,
// has not written its pid in time, or cannot be examined.
func Holder(path string) (pid int, held bool, err error) {
	h, err := holderOf(path)
	return h.pid, h.held, err
}

// A holder is a process that holds the lock on a pid file, or on its name.
type holder struct {
	pid  int
	held bool
	// byName is true if the process holds only the lock on the name: the file
	// is missing, or is another one, until the process notices. user has
	// requested that lock.
	byName bool
	user   int
}

// holderOf asks for the lock on the file first: it has a holder that any process
// can see, also one in another network namespace.
func holderOf(path string) (holder, error) {
	pid, held, err := fileHolder(path)
	if held || err != nil {
		return holder{pid: pid, held: held}, err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return holder{}, err
	}
	if pid, user, held := nameHolder(path); held {
		return holder{pid, true, true, user}, nil
	}
	return holder{}, nil
}

// fileHolder is Holder for the lock on the file alone.
func fileHolder(path string) (pid int, held bool, err error) {
	f, err := openForReading(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, safedir.ErrReplaced) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(rawFD(f), &st); err != nil {
		return 0, false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
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
		if pid := readPID(f); pid > 0 {
			switch has, known := hasOpen(pid, &st, f); {
			case has:
				return pid, true, nil
			case !known && exists(pid): // waiting would not help
				return 0, true, nil
			}
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
