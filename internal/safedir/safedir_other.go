//go:build unix && !linux && !solaris && !aix

package safedir

import (
	"os"

	"golang.org/x/sys/unix"
)

const searchOnly = 0 // there is no portable way to use a directory that cannot be read

func openWithoutLinks(string, int) (int, error) { return -1, unix.ENOSYS }

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
