package safedir

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// searchOnly opens a directory that cannot be read.
const searchOnly = unix.O_PATH

// openWithoutLinks opens a file unless a link is on the way. It needs Linux 5.6.
func openWithoutLinks(path string, flags int) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS})
}

func renameExclusive(dir int, from, to string) error {
	err := unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS { // a file system or a kernel without it
		return linkAndUnlink(dir, from, to)
	}
	return err
}

// overflowUID is the user of files whose owner has no number in the user
// namespace, unless /proc/sys/kernel/overflowuid was changed.
const overflowUID = 65534

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
