//go:build unix

package binary

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OnDisk returns the absolute path at which a new version of this program will
// be found. This is the path by which the program was started, given its first
// argument and its working directory at that time, if that path is this program
// now. It keeps symbolic links, since a deployment often switches one. Otherwise
// OnDisk returns the path of the file itself. It must be called only once, before
// the program can change its working directory.
func OnDisk(args0, dir string) (string, error) {
	if path := startedBy(args0, dir); path != "" {
		exe, err1 := Executable()
		ours, err2 := os.Stat(exe)
		there, err3 := os.Stat(path)
		if err1 == nil && err2 == nil && err3 == nil && os.SameFile(ours, there) {
			return path, nil
		}
	}
	return os.Executable()
}

// startedBy returns the path at which a shell in dir would find the program, or
// "" if that is unknown.
func startedBy(args0, dir string) string {
	path := args0
	if !strings.Contains(args0, "/") {
		found, err := exec.LookPath(args0)
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return ""
		}
		path = found
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// A Binary is an open program file. It can be started even after its name was
// given to another file, or was deleted. A Binary is not safe for concurrent use.
type Binary struct {
	path string
	fd   int // -1 after Close
	info os.FileInfo
}

// Open opens a program file. It returns an error unless the file is complete,
// executable, and for this machine, as far as can be known without starting it.
// The caller should close the Binary after the last process was started from it.
func Open(path string) (*Binary, error) {
	if path == "" { // OnDisk has not found it
		return nil, errors.New("the path of the program's file is not known: start the program by a path")
	}
	// Opening a named pipe without O_NONBLOCK would wait for a writer. The flag has
	// no effect on a regular file.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if dir := missingDir(path); dir != "" {
			return nil, fmt.Errorf("the directory %s of the program %s is missing: %w", dir, path, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("the program is missing: %w: install the complete file before starting it", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the program cannot be read: %w: chmod +r it, for the user of this process", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	b := &Binary{path: path, fd: -1}
	if b.info, err = f.Stat(); err != nil {
		return nil, err
	}
	if !b.info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a program but a file of another type: %v", path, b.info.Mode().Type())
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := conn.Control(func(raw uintptr) {
		b.fd, err = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 3) // above the standard streams
	})
	if err = errors.Join(cerr, os.NewSyscallError("fcntl", err)); err == nil {
		err = b.check(f)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Binary) check(f *os.File) error {
	err := unix.Faccessat(unix.AT_FDCWD, b.StartPath(b.fd), unix.X_OK, unix.AT_EACCESS)
	switch {
	case err == nil:
	case b.info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not executable: chmod +x it", b.path)
	case err == unix.EACCES:
		return fmt.Errorf("%s is not executable by this process: check its owner and mode (%v), and whether its file system is mounted noexec", b.path, b.info.Mode())
	default:
		return &os.PathError{Op: "faccessat", Path: b.path, Err: err}
	}
	exe, err := Executable()
	if err != nil {
		return nil // without this process's file, there is nothing to compare
	}
	self, err := os.Open(exe)
	if err != nil {
		return nil
	}
	defer self.Close()
	if err := checkProgram(f, b.info.Size(), self); err != nil {
		return fmt.Errorf("%s %w", b.path, err)
	}
	return nil
}

// missingDir returns the first directory of a path that does not exist; "" if all
// do.
func missingDir(path string) (missing string) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return missing
		}
		missing = dir
	}
}

// FD returns the descriptor of the file, which is close-on-exec. It returns -1
// after Close.
func (b *Binary) FD() int { return b.fd }

// File returns the path of the file without symbolic links, which shows what a
// link led to when Open was called.
func (b *Binary) File() string {
	if link := b.StartPath(b.fd); link != b.path {
		if file, err := os.Readlink(link); err == nil {
			return file
		}
	}
	if file, err := filepath.EvalSymlinks(b.path); err == nil {
		return file
	}
	return b.path
}

// Path returns the path given to Open.
func (b *Binary) Path() string { return b.path }

// Close closes the file. It may be called more than once.
func (b *Binary) Close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
		b.fd = -1
	}
}

// Same reports whether b and other are the same file, and nothing wrote to it
// between the two calls of Open. Either may be nil; then Same returns false.
func (b *Binary) Same(other *Binary) bool {
	return b != nil && other != nil && os.SameFile(b.info, other.info) && b.info.Size() == other.info.Size() &&
		b.info.ModTime().Equal(other.info.ModTime())
}

// SetName sets the name of this process that ps and top show, to the last
// element of arg0. It should be called while the first thread is the only one, in
// the initialization of a package.
func SetName(arg0 string) {
	setName(arg0[strings.LastIndexByte(arg0, '/')+1:])
}
