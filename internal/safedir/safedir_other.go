//go:build unix && !linux && !solaris && !aix

package safedir

import (
	"os"

	"golang.org/x/sys/unix"
)

const searchOnly = 0 // there is no portable way to use a directory that cannot be read

// openWithoutLinks opens a file unless a link is on the way. It returns ENOSYS if
// a directory on the way cannot be read.
func openWithoutLinks(path string, flags int) (int, error) {
	fd, err := walk(path, flags)
	if err == unix.EACCES {
		return -1, unix.ENOSYS
	}
	return fd, err
}

// readEntry examines a file, and reads it if it is a link.
func readEntry(path string) (st unix.Stat_t, target string, err error) {
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return st, "", err
	}
	target, err = os.Readlink(path)
	return st, target, err
}

func renameExclusive(dir int, from, to string) error { return linkAndUnlink(dir, from, to) }

func unmapped(uint32) bool { return false }
