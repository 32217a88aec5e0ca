package safedir

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// searchOnly opens a directory that cannot be read.
const searchOnly = unix.O_PATH

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
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		var first, outside, count uint64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err != nil || first <= overflowUID && overflowUID < first+count {
			return false
		}
	}
	return true
}
