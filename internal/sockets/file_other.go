//go:build !unix || solaris || aix

package sockets

import (
	"errors"
	"os"
	"path/filepath"
)

// place is the path of a unix socket's file. Package safedir does not support
// these systems.
type place struct{ path string }

func hold(path string) (*place, error) {
	path, err := filepath.Abs(path) // the program may change its directory
	return &place{path}, err
}

func (*place) close()                {}
func (*place) lock() (func(), error) { return nil, errors.ErrUnsupported }
func (*place) look()                 {}

// socketFile is a file at a place. The FileInfo distinguishes it from another
// file of the same name.
type socketFile struct {
	*place
	info os.FileInfo
}

func (p *place) find() (*socketFile, error) {
	info, err := os.Lstat(p.path)
	if err != nil {
		return nil, err
	}
	return &socketFile{p, info}, nil
}

func (p *place) fileOf(int, bool) (*socketFile, error) { return p.find() }

func (f *socketFile) isSocket() bool { return f.info.Mode()&os.ModeSocket != 0 }

func (f *socketFile) inPlace() bool {
	now, err := os.Lstat(f.path)
	return err == nil && os.SameFile(now, f.info)
}

func (*socketFile) address(path string) string { return path }
func (f *socketFile) remove() error            { return os.Remove(f.path) }
func (*socketFile) release()                   {}

func (f *socketFile) change(uid, gid int, mode uint32) error {
	if uid != -1 || gid != -1 {
		if err := os.Chown(f.path, uid, gid); err != nil {
			return err
		}
	}
	if mode == 0 {
		return nil
	}
	return os.Chmod(f.path, os.FileMode(mode))
}
