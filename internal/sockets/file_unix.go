//go:build unix && !solaris && !aix

package sockets

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/safedir"
)

// place is the name of a unix socket's file in a directory that is held open.
// Users who can write to the directory, or to one above it, can lead the name to
// any file at any time.
type place struct {
	path string // absolute
	dir  *safedir.Dir
	name string

	before *unix.Stat_t // the file before bind; nil for none
}

// hold returns the place of a path. The program may change its directory later.
func hold(path string) (*place, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := safedir.Hold(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return &place{path: path, dir: dir, name: filepath.Base(path)}, nil
}

func (p *place) close() { p.dir.Close() }

// lock locks the directory. It returns an error if another user may have led the
// path there, since files in it are then not those that the program means.
func (p *place) lock() (unlock func(), err error) {
	if err := p.dir.Redirected(); err != nil {
		return nil, err
	}
	return fd.LockDir(p.dir.Fd(), p.dir.Path())
}

// look notes which file is there before bind.
func (p *place) look() { p.before, _ = p.dir.Lstat(p.name) }

// socketFile is a file at a place. The inode distinguishes it from another file
// of the same name.
type socketFile struct {
	*place
	st    unix.Stat_t
	pin   *os.File // on Linux, the file, whatever its name; keeps its inode from being reused
	exact bool     // the kernel has named the file
}

// find returns the file that is at the place now.
func (p *place) find() (*socketFile, error) {
	pin, err := pinNamed(p.dir, p.name)
	if err != nil {
		return nil, err
	}
	f := &socketFile{place: p, pin: pin}
	if pin != nil {
		err = unix.Fstat(int(pin.Fd()), &f.st)
	} else if st, lerr := p.dir.Lstat(p.name); lerr == nil {
		f.st = *st
	} else {
		err = lerr
	}
	if err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

// fileOf returns the file of a bound socket, which bind has just made or which is
// inherited. On Linux the kernel names it to a process with CAP_NET_ADMIN. Other
// processes take the socket that is at the place, unless it was there before bind.
func (p *place) fileOf(socket int, inherited bool) (f *socketFile, err error) {
	replaced := fmt.Errorf("socket file %s: %w", p.path, safedir.ErrReplaced)
	pin := pinBound(socket)
	if pin != nil {
		f = &socketFile{place: p, pin: pin, exact: true}
		if err = unix.Fstat(int(pin.Fd()), &f.st); err == nil && !f.inPlace() {
			err = replaced
			if !inherited {
				removeStray(pin)
			}
		}
	} else {
		if err := p.dir.Redirected(); inherited && err != nil {
			return nil, err
		}
		if f, err = p.find(); err != nil {
			return nil, err
		}
		old := !inherited && p.before != nil && safedir.SameFile(p.before, &f.st)
		if old || !f.isSocket() {
			err = replaced
		}
	}
	if err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

// removeStray removes the file of a socket that bind has made in another
// directory, to which another user has led the path meanwhile.
func removeStray(pin *os.File) {
	path, err := os.Readlink(descriptorPath(pin))
	if err != nil {
		return
	}
	if dir, err := safedir.Hold(filepath.Dir(path)); err == nil {
		if name := filepath.Base(path); dir.Holds(name, pin) {
			dir.Remove(name)
		}
		dir.Close()
	}
}

func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (f *socketFile) isSocket() bool { return f.st.Mode&unix.S_IFMT == unix.S_IFSOCK }

// inPlace reports whether the file still has its name.
func (f *socketFile) inPlace() bool {
	now, err := f.dir.Lstat(f.name)
	return err == nil && safedir.SameFile(now, &f.st)
}

// address returns an address to dial for this very file, if there is one, and
// else the given path.
func (f *socketFile) address(path string) string {
	if f.pin != nil {
		if exact := descriptorPath(f.pin); unix.Access(exact, unix.F_OK) == nil {
			return exact
		}
	}
	return path
}

// remove removes the file. A user who can replace it between inPlace and remove
// could remove the other file as well.
func (f *socketFile) remove() error { return f.dir.Remove(f.name) }

// change sets the owner, the group and the permissions of the file; -1 and 0
// leave them as they are.
func (f *socketFile) change(uid, gid int, mode uint32) error {
	// Nothing but a socket that this process has made may be changed. Another
	// name would be a hard link of a user who wants that file.
	if !f.exact && f.dir.Shared() != nil && (f.st.Uid != uint32(os.Geteuid()) || f.st.Nlink != 1) {
		return fmt.Errorf("socket file %s: %w", f.path, safedir.ErrReplaced)
	}
	if uid != -1 || gid != -1 {
		if err := f.chown(uid, gid); err != nil {
			return &os.PathError{Op: "chown", Path: f.path, Err: err}
		}
	}
	if mode == 0 {
		return nil
	}
	if err := f.chmod(mode); err != nil { // after chown, and without the umask
		return &os.PathError{Op: "chmod", Path: f.path, Err: err}
	}
	return nil
}

// release closes what find has opened, and leaves the place open.
func (f *socketFile) release() {
	if f.pin != nil {
		f.pin.Close()
	}
}

func (f *socketFile) close() {
	f.release()
	f.place.close()
}
