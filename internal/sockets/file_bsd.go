//go:build unix && !linux && !solaris && !aix

package sockets

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

func pinBound(int) *os.File { return nil }

func pinNamed(*safedir.Dir, string) (*os.File, error) { return nil, nil }

// chown does not follow a link. It cannot exclude that a user who can write to
// the directory replaces the socket by a hard link at this moment.
func (f *socketFile) chown(uid, gid int) error {
	if !f.inPlace() {
		return safedir.ErrReplaced
	}
	return unix.Fchownat(int(f.dir.Fd()), f.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// chmod is as safe as chown.
func (f *socketFile) chmod(mode uint32) error {
	if !f.inPlace() {
		return safedir.ErrReplaced
	}
	return unix.Fchmodat(int(f.dir.Fd()), f.name, mode, unix.AT_SYMLINK_NOFOLLOW)
}
