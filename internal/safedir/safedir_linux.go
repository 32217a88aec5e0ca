package safedir

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// searchOnly opens a directory that cannot be read.
const searchOnly = unix.O_PATH

// openat2 is replaced by tests.
var openat2 = unix.Openat2

// openWithoutLinks opens a file unless a link is on the way. Kernels before Linux
// 5.6 have no openat2, and sandboxes refuse it.
func openWithoutLinks(path string, flags int) (int, error) {
	fd, err := openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == unix.ENOSYS || err == unix.EPERM {
		return walk(path, flags)
	}
	return fd, err
}

// readEntry examines a file, and reads it if it is a link. It reads the link that
// it has examined, although that may be replaced meanwhile.
func readEntry(path string) (st unix.Stat_t, target string, err error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return st, "", err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return st, "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return st, string(buf[:max(n, 0)]), err
}

func renameExclusive(dir int, from, to string) error {
	err := unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS { // a file system or a kernel without it
		return linkAndUnlink(dir, from, to)
	}
	return err
}

// unmapped reports whether uid stands for users outside the user namespace.
func unmapped(uid uint32) bool {
	if uid != overflowUID {
		return false
	}
	table, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !maps(string(table), overflowUID)
}

// maps reports whether a user namespace has a user of this number. It returns
// true if the table cannot be read.
func maps(table string, uid uint64) bool {
	for line := range strings.Lines(table) {
		var first, outside, count uint64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err != nil || first <= uid && uid < first+count {
			return true
		}
	}
	return false
}
