//go:build !unix || solaris || aix

package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A folder is the directory of a journal. This system can only read journals.
type folder struct {
	names fileNames
	path  string
}

func openFolder(string) (*folder, error) { return nil, errors.ErrUnsupported }

func openFolderToRead(path string) (*folder, error) { return &folder{namesOf(path), path}, nil }

func (d *folder) close() error { return nil }

func (d *folder) rotatedFiles() ([]rotatedFile, error) {
	entries, err := os.ReadDir(filepath.Dir(d.path))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return d.names.sorted(names), err
}

func (d *folder) join(name string) string { return filepath.Join(filepath.Dir(d.path), name) }

func (d *folder) openToRead(name string) (*os.File, error) {
	if info, err := os.Lstat(d.join(name)); err != nil || !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return os.Open(d.join(name))
}

func (d *folder) isRegular(string) bool { return false }

func (d *folder) holds(name string, f *os.File) bool {
	info, err := f.Stat()
	other, otherErr := os.Stat(d.join(name))
	return err == nil && otherErr == nil && os.SameFile(info, other)
}

func (d *folder) openToWrite() (*os.File, bool, error) { return nil, false, errors.ErrUnsupported }
func (d *folder) rename(string) error                  { return errors.ErrUnsupported }
func (d *folder) renameBack(string) error              { return errors.ErrUnsupported }
func (d *folder) remove(string) error                  { return errors.ErrUnsupported }
func (d *folder) inPlace() (bool, error)               { return false, errors.ErrUnsupported }

func examine(*os.File, string) (int64, bool, int64, error) {
	return 0, false, 0, errors.ErrUnsupported
}

func openCurrent(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return regular(f)
}
