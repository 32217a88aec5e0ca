//go:build unix

package inherit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OnDisk is the absolute path under which the file of the program that runs here can be found again when it has been
// replaced: by the words that the program was started with, in the directory that it was started in, where that is this
// program at present. Symbolic links are not resolved, since a deploy often switches one. Else it is the path of the file
// itself. It is called once, before the program may have changed its directory.
func OnDisk(args0, dir string) (string, error) {
	if path := started(args0, dir); path != "" {
		exe, err1 := Executable()
		ours, err2 := os.Stat(exe)
		there, err3 := os.Stat(path)
		if err1 == nil && err2 == nil && err3 == nil && os.SameFile(ours, there) {
			return path, nil
		}
	}
	return os.Executable()
}

// started is where a shell in dir would look for the program; "" where that cannot be told.
func started(args0, dir string) string {
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

// A Binary is the file of a program, held open so that the very same file can be started again after another has taken
// its name, or it was deleted. Its methods belong to one goroutine.
type Binary struct {
	path string
	fd   int // -1 once it is closed
	info os.FileInfo
}

// OpenBinary opens the file of a program and makes sure, as far as can be told without starting it, that it can be
// started: it is whole, executable, and for this machine.
func OpenBinary(path string) (*Binary, error) {
	// Were it a named pipe, opening it would wait for a writer without O_NONBLOCK; to a program's file that means nothing.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the program is missing: %w: put it there, whole, before it is to be started", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the program cannot be looked at: %w: chmod +r it, for the user of this process", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	b := &Binary{path: path, fd: -1}
	if b.info, err = f.Stat(); err != nil {
		return nil, err
	}
	if !b.info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file that could be a program: %v", path, b.info.Mode().Type())
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := conn.Control(func(raw uintptr) { b.fd, err = DupCloseOnExec(raw) }); cerr != nil {
		err = cerr
	}
	if err == nil {
		err = b.check()
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Binary) check() error {
	err := unix.Faccessat(unix.AT_FDCWD, b.StartPath(b.fd), unix.X_OK, unix.AT_EACCESS)
	switch {
	case err == nil:
	case b.info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not executable: chmod +x it", b.path)
	case err == unix.EACCES:
		return fmt.Errorf("%s is not executable by this process: see its owner and mode (%v), and whether its file system is mounted noexec", b.path, b.info.Mode())
	default:
		return &os.PathError{Op: "faccessat", Path: b.path, Err: err}
	}
	exe, err := Executable()
	if err != nil {
		return nil // no more can be told
	}
	self, err := os.Open(exe)
	if err != nil {
		return nil
	}
	defer self.Close()
	if err := checkProgram(fdReader(b.fd), b.info.Size(), self); err != nil {
		return fmt.Errorf("%s %w", b.path, err)
	}
	return nil
}

// FD is the descriptor that holds the file, close-on-exec; -1 once it is closed.
func (b *Binary) FD() int { return b.fd }

// Path is what OpenBinary was given.
func (b *Binary) Path() string { return b.path }

// Close lets go of the file.
func (b *Binary) Close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
		b.fd = -1
	}
}

// Same tells whether two are the same file, and it was not written to in between: what was true when they were opened
// counts.
func (b *Binary) Same(other *Binary) bool {
	return b != nil && other != nil && os.SameFile(b.info, other.info) && b.info.Size() == other.info.Size() &&
		b.info.ModTime().Equal(other.info.ModTime())
}

// fdReader reads from a descriptor and leaves its offset alone.
type fdReader int

func (fd fdReader) ReadAt(p []byte, off int64) (int, error) {
	for {
		switch n, err := unix.Pread(int(fd), p, off); {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n < len(p):
			return n, io.EOF
		default:
			return n, nil
		}
	}
}
