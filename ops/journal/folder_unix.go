//go:build unix && !solaris && !aix

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

// A folder is the directory of a journal, held open.
type folder struct {
	dir   *safedir.Dir
	names fileNames
	path  string // of the current file
}

// openFolder opens the directory of a journal for a writer. It returns an error
// if another user could replace the journal.
func openFolder(path string) (*folder, error) {
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	d := &folder{dir, namesOf(path), path}
	if err := errors.Join(d.names.check(), dir.Shared(), d.checkLength()); err != nil {
		dir.Close()
		return nil, err
	}
	return d, nil
}

// checkLength returns an error if the file system has no room for the longest
// name, which would prevent rotation.
func (d *folder) checkLength() error {
	longest := d.names.longest()
	if _, err := d.dir.Lstat(longest); errors.Is(err, unix.ENAMETOOLONG) {
		return fmt.Errorf("name is too long: rotated files have names of up to %d bytes", len(longest))
	}
	return nil
}

// openFolderToRead opens the directory of a journal for a reader, which may read
// journals of other users.
func openFolderToRead(path string) (*folder, error) {
	dir, err := safedir.Hold(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return &folder{dir, namesOf(path), path}, nil
}

func (d *folder) close() error { return d.dir.Close() }

// rotatedFiles returns the rotated files of the journal, oldest first.
func (d *folder) rotatedFiles() ([]rotatedFile, error) {
	names, err := d.dir.Names()
	return d.names.sorted(names), err
}

// openToRead opens a regular file. The error matches fs.ErrNotExist if the name
// is that of anything else, which is not a file of the journal.
func (d *folder) openToRead(name string) (*os.File, error) {
	if !d.isRegular(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return d.dir.OpenRead(name)
}

func (d *folder) isRegular(name string) bool {
	st, err := d.dir.Lstat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// holds reports whether the name is that of the open file.
func (d *folder) holds(name string, f *os.File) bool { return d.dir.Holds(name, f) }

// openToWrite opens the current file, and creates it if it is missing.
func (d *folder) openToWrite() (f *os.File, created bool, err error) {
	d.finishRename()
	_, missing := d.dir.Lstat(d.names.current)
	f, err = d.dir.OpenFile(d.names.current, unix.O_RDWR|unix.O_APPEND, fileMode)
	if errors.Is(err, safedir.ErrReplaced) { // another process created it first
		f, err = d.dir.OpenFile(d.names.current, unix.O_RDWR|unix.O_APPEND, 0)
	}
	if err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && (st.Uid != uint32(os.Geteuid()) && st.Uid != 0 || st.Mode&0o002 != 0) {
		err = fmt.Errorf("file belongs to user %d with mode %#o, so others could write to it: "+
			"correct its owner and mode", st.Uid, st.Mode&0o777)
	}
	if err != nil {
		f.Close()
		return nil, false, &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	return f, errors.Is(missing, fs.ErrNotExist), nil
}

// finishRename removes the old name of a file whose writer died while it rotated
// the file on a system that cannot rename without replacing. Such a file has two
// names.
func (d *folder) finishRename() {
	current, err := d.dir.Lstat(d.names.current)
	if err != nil || current.Mode&unix.S_IFMT != unix.S_IFREG || current.Nlink != 2 {
		return
	}
	files, _ := d.rotatedFiles()
	if len(files) == 0 {
		return
	}
	if last, err := d.dir.Lstat(files[len(files)-1].name); err == nil && safedir.SameFile(current, last) {
		d.dir.Remove(d.names.current)
	}
}

// rename renames the current file. Its errors do not depend on the new name, so
// that repeated ones are the same.
func (d *folder) rename(to string) error { return d.renameFile(d.names.current, to) }

// renameBack undoes rename.
func (d *folder) renameBack(from string) error { return d.renameFile(from, d.names.current) }

func (d *folder) renameFile(from, to string) error {
	err := d.dir.Rename(from, to)
	var link *os.LinkError
	if errors.As(err, &link) {
		return &fs.PathError{Op: "rename", Path: d.path, Err: link.Err}
	}
	return err
}

func (d *folder) remove(name string) error { return d.dir.Remove(name) }

// inPlace reports whether the path leads to this directory.
func (d *folder) inPlace() (bool, error) { return d.dir.InPlace() }

// examine returns the size of the open file, and that of the file at the path if
// it is another one, or -1 if there is none.
func examine(f *os.File, path string) (size int64, inPlace bool, other int64, err error) {
	var opened, named unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &opened); err != nil {
		return 0, false, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if unix.Lstat(path, &named) != nil {
		return opened.Size, false, -1, nil
	}
	return opened.Size, safedir.SameFile(&opened, &named), named.Size, nil
}

// openCurrent opens the current file for reading. A link at the path is
// followed. It does not block on a FIFO.
func openCurrent(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return regular(f)
}
