//go:build unix && !solaris && !aix

package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Dir is a directory that is held open. The names that its methods take are
// names of files in it, without a slash. Its methods are safe for concurrent
// use, except Close.
type Dir struct {
	path       string // absolute
	f          *os.File
	redirected error
}

// Open opens a directory. It follows links in the path, unless another user than
// root and the caller could have placed them: such a user could lead the caller
// to any directory. It then opens only a directory that belongs to another user
// anyway. Open does not need permission to read the directory on Linux.
func Open(path string) (*Dir, error) {
	d, err := Hold(path)
	if err != nil {
		return nil, err
	}
	if err := d.Redirected(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Hold opens the directory to which the path leads now, also if Open does not.
// The caller must expect any directory, as one that only reads files may.
func Hold(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd := -1
	direct, redirected, byGroup := followPath(path)
	if redirected != nil || byGroup != nil {
		// Without a link, other users can lead the path only to directories
		// that they are able to move, which are below their own.
		err := error(unix.ENOENT)
		if direct != "" {
			fd, err = openDir(direct, openWithoutLinks)
		}
		switch {
		case err == nil:
			redirected = nil
		case redirected == nil && err != unix.ENOSYS:
			// The path has changed since followPath.
			redirected = byGroup
		}
	}
	if fd < 0 {
		fd, err = openDir(path, func(path string, flags int) (int, error) { return unix.Open(path, flags, 0) })
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{path: path, f: os.NewFile(uintptr(fd), path), redirected: redirected}
	st, err := d.stat()
	if err != nil {
		d.Close()
		return nil, err
	}
	if !trusted(st) {
		d.redirected = nil
	}
	return d, nil
}

// openDir opens a directory for reading, or only for the use of its files if it
// cannot be read.
func openDir(path string, open func(path string, flags int) (int, error)) (fd int, err error) {
	const flags = unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err = retryEINTR(func() (int, error) { return open(path, unix.O_RDONLY|flags) })
	if err == unix.EACCES && searchOnly != 0 {
		fd, err = retryEINTR(func() (int, error) { return open(path, searchOnly|flags) })
	}
	return fd, err
}

// walk opens a file by an absolute path without dots, one directory after the
// other. Each is held open while the next one is opened in it, so no link is
// followed, however the directories are moved.
func walk(path string, flags int) (fd int, err error) {
	const next = searchOnly | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err = retryEINTR(func() (int, error) { return unix.Open("/", next, 0) })
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(names) == 0 {
		names = []string{"."}
	}
	for i, name := range names {
		if err != nil {
			return -1, err
		}
		how := next
		if i == len(names)-1 {
			how = flags
		}
		dir := fd
		fd, err = retryEINTR(func() (int, error) { return unix.Openat(dir, name, how|unix.O_NOFOLLOW, 0) })
		unix.Close(dir)
	}
	return fd, err
}

// Redirected returns an error if another user may have led the path to this
// directory, by a link, although it is root's or the caller's. The error names
// that user.
func (d *Dir) Redirected() error { return d.redirected }

// Fd returns the descriptor of the directory. On Linux it has been opened with
// O_PATH if the directory cannot be read.
func (d *Dir) Fd() uintptr { return d.f.Fd() }

// Path returns the absolute path of the directory, as it was opened.
func (d *Dir) Path() string { return d.path }

// Close closes the directory.
func (d *Dir) Close() error { return d.f.Close() }

// InPlace reports whether the path still leads to the directory. An error means
// that the path leads nowhere, or cannot be examined.
func (d *Dir) InPlace() (bool, error) {
	var named unix.Stat_t
	if err := unix.Stat(d.path, &named); err != nil {
		return false, &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	st, err := d.stat()
	if err != nil {
		return false, err
	}
	return SameFile(st, &named), nil
}

// Shared returns nil if only root and this process's user can create, rename and
// remove files in the directory. The error names those who can as well.
func (d *Dir) Shared() error {
	st, err := d.stat()
	if err != nil {
		return err
	}
	switch {
	case !trusted(st):
		return fmt.Errorf("directory %s belongs to user %d: use a directory of root's or of your own", d.path, st.Uid)
	case st.Mode&0o002 != 0:
		return fmt.Errorf("every user can create files in directory %s: use another directory, or chmod o-w", d.path)
	case st.Mode&0o020 != 0 && !privateGroup(st, uint32(os.Geteuid()), uint32(os.Getegid())):
		return fmt.Errorf("group %d can create files in directory %s: use another directory, or chmod g-w", st.Gid, d.path)
	}
	return nil
}

// privateGroup reports whether the group of a file is that of this process's
// ordinary user alone. Systems that give each user such a group, with the number
// of the user, make directories writable for it: the umask is 002 on Ubuntu and
// Fedora. The group of the user nobody belongs to many.
func privateGroup(st *unix.Stat_t, uid, gid uint32) bool {
	return uid != 0 && uid != overflowUID && st.Uid == uid && st.Gid == uid && gid == uid
}

// Unprotected returns nil unless every user can rename and remove the files of
// others in the directory. The error says how to change that.
func (d *Dir) Unprotected() error {
	st, err := d.stat()
	if err != nil {
		return err
	}
	if st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("directory %s lets every user remove the files of others: "+
			"use another directory, or chmod o-w or +t", d.path)
	}
	return nil
}

// Sticky reports whether other users can rename and remove only their own files
// in the directory, although they can create some.
func (d *Dir) Sticky() bool {
	st, err := d.stat()
	return err == nil && trusted(st) && st.Mode&unix.S_ISVTX != 0
}

// OpenFile opens a file for the given access mode. It does not follow a symbolic
// link, does not block on a FIFO, and accepts only a regular file with one name.
// It creates a missing file if perm is not zero. The access mode must not have
// O_TRUNC, which would truncate the file before it is examined.
func (d *Dir) OpenFile(name string, access int, perm uint32) (*os.File, error) {
	return d.open(name, access, perm, checkKind)
}

// OpenRead opens a file for reading like OpenFile, but accepts one with several
// names: reading harms no file.
func (d *Dir) OpenRead(name string) (*os.File, error) {
	return d.open(name, unix.O_RDONLY, 0, checkRegular)
}

func (d *Dir) open(name string, access int, perm uint32, check func(*unix.Stat_t) error) (*os.File, error) {
	path := d.join(name)
	if access&unix.O_TRUNC != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.EINVAL}
	}
	flags := access | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := d.openat(name, flags, 0)
	if err == unix.ENOENT && perm != 0 {
		// A second call, because some kernels refuse O_CREAT on another
		// user's file in a sticky directory (fs.protected_regular). O_EXCL
		// also refuses a dangling symbolic link.
		fd, err = d.openat(name, flags|unix.O_CREAT|unix.O_EXCL, perm)
		if err == unix.EEXIST {
			err = ErrReplaced
		}
	}
	switch err {
	case unix.ELOOP, unix.EMLINK:
		err = errors.New("symbolic link, which is not followed: remove it")
	case unix.ENXIO, unix.EISDIR, unix.EOPNOTSUPP: // a FIFO without a reader, a directory, a socket
		err = errNotRegular
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = check(&st)
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

var errNotRegular = errors.New("not a regular file: remove it")

func checkRegular(st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular
	}
	return nil
}

func checkKind(st *unix.Stat_t) error {
	if err := checkRegular(st); err != nil {
		return err
	}
	switch {
	case st.Nlink == 0:
		return ErrReplaced
	case st.Nlink > 1:
		return errors.New("file has other names (hard links): remove it")
	}
	return nil
}

// Create creates an empty file. The error matches fs.ErrExist if the name is
// taken, also by a link.
func (d *Dir) Create(name string, perm uint32) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := d.openat(name, flags, perm)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: d.join(name), Err: err}
	}
	return os.NewFile(uintptr(fd), d.join(name)), nil
}

// Lstat examines a file without following a link.
func (d *Dir) Lstat(name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: d.join(name), Err: err}
	}
	return &st, nil
}

// Remove removes a file, or an empty directory.
func (d *Dir) Remove(name string) error {
	err := unix.Unlinkat(d.fd(), name, 0)
	if err == unix.EISDIR || err == unix.EPERM || err == unix.EACCES {
		if dirErr := unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR); dirErr == nil || err == unix.EISDIR {
			err = dirErr
		}
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: d.join(name), Err: err}
	}
	return nil
}

// Rename gives a file another name. The error matches fs.ErrExist if the new
// name is taken.
func (d *Dir) Rename(from, to string) error {
	if err := renameExclusive(d.fd(), from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: d.join(from), New: d.join(to), Err: err}
	}
	return nil
}

// Names returns the names of the files in the directory, in no order.
func (d *Dir) Names() ([]string, error) {
	// A descriptor with an offset of its own.
	fd, err := d.openat(".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// Holds reports whether the name is that of the open file.
func (d *Dir) Holds(name string, f *os.File) bool {
	var opened unix.Stat_t
	if unix.Fstat(int(f.Fd()), &opened) != nil {
		return false
	}
	named, err := d.Lstat(name)
	return err == nil && SameFile(&opened, named)
}

func (d *Dir) fd() int { return int(d.f.Fd()) }

func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }

func (d *Dir) openat(name string, flags int, perm uint32) (int, error) {
	return retryEINTR(func() (int, error) { return unix.Openat(d.fd(), name, flags, perm) })
}

func (d *Dir) stat() (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	return &st, nil
}

// overflowUID is the user nobody. On Linux it also stands for a user without a
// number in the user namespace, unless /proc/sys/kernel/overflowuid was changed.
const overflowUID = 65534

// SameFile reports whether both describe one file.
func SameFile(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// trusted reports whether a file belongs to root or to this process's user, or to
// a user that no process of this user namespace can have. In a container without
// privileges, files of the machine's root belong to such a user.
func trusted(st *unix.Stat_t) bool {
	return st.Uid == 0 || st.Uid == uint32(os.Geteuid()) || unmapped(st.Uid)
}

func retryEINTR(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// followPath returns the path without links. The error means that a user other
// than root and the caller can lead the path to another directory: by the owner
// of a directory on the way, because every user can rename files there, or
// because a group can, and has placed a link. Links behind such a place are not
// followed; direct is then "", as it is for a path that leads nowhere.
//
// The second error means that a group can do that, and has not: /var/log is
// writable for a group on Ubuntu. The path must then be opened without links.
func followPath(path string) (direct string, redirected, byGroup error) {
	rest := strings.Split(path, "/")
	direct = "/"
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			direct = filepath.Dir(direct)
			continue
		}
		var dir unix.Stat_t
		next := filepath.Join(direct, name)
		if unix.Lstat(direct, &dir) != nil {
			return "", redirected, byGroup // opening it reports the error
		}
		// A missing entry counts as replaceable: another user may be about to
		// create it.
		entry, target, err := readEntry(next)
		sticky := dir.Mode&unix.S_ISVTX != 0 && err == nil
		link := err == nil && entry.Mode&unix.S_IFMT == unix.S_IFLNK
		switch {
		case redirected != nil:
		case !trusted(&dir):
			redirected = redirectError(path, fmt.Sprintf("user %d can replace %s", dir.Uid, next))
		case dir.Mode&0o002 != 0 && !sticky:
			redirected = redirectError(path, fmt.Sprintf("every user can replace %s", next))
		case dir.Mode&0o022 != 0 && sticky && !trusted(&entry):
			redirected = redirectError(path, fmt.Sprintf("user %d can replace %s", entry.Uid, next))
		case dir.Mode&0o020 != 0 && !sticky:
			byGroup = redirectError(path, fmt.Sprintf("group %d can replace %s", dir.Gid, next))
			if err != nil || link && (!trusted(&entry) || entry.Nlink > 1) {
				redirected = byGroup
			}
		}
		if err != nil {
			return "", redirected, byGroup
		}
		if !link {
			direct = next
			continue
		}
		if links++; redirected != nil || links > maxLinks {
			return "", redirected, byGroup
		}
		if filepath.IsAbs(target) {
			direct = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return direct, redirected, byGroup
}

// maxLinks is how many links in a path Linux follows; other systems follow 32.
const maxLinks = 40

func redirectError(path, why string) error {
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%s, and so lead to any directory: "+
		"use a directory below directories of root's or of your own", why)}
}

// linkAndUnlink renames a file in two steps. A crash between them leaves both
// names.
func linkAndUnlink(dir int, from, to string) error {
	switch err := unix.Linkat(dir, from, dir, to, 0); err {
	case nil:
	case unix.EPERM, unix.ENOTSUP, unix.ENOSYS: // perhaps a file system without hard links
		return lookAndRename(dir, from, to)
	default:
		return err
	}
	err := unix.Unlinkat(dir, from, 0)
	if err != nil {
		unix.Unlinkat(dir, to, 0)
	}
	return err
}

// lookAndRename renames a file unless the new name is taken. A file that gets
// that name in between is replaced; the files of a file system without hard links
// can have no other name, by which it would have been safe.
func lookAndRename(dir int, from, to string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, to, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	} else if err != unix.ENOENT {
		return err
	}
	return unix.Renameat(dir, from, dir, to)
}
