package safedir

import (
	"fmt"
	"os"
	"strings"
)

// Ambiguous reports whether a uid stands for several users: in a user namespace the
// kernel reports each user outside it as overflowUID, which may be one inside, too.
func Ambiguous(uid uint32) bool { return uid == overflowUID && !mapsAll("/proc/self/uid_map") }

// AmbiguousGroup is Ambiguous for groups.
func AmbiguousGroup(gid uint32) bool { return gid == overflowUID && !mapsAll("/proc/self/gid_map") }

// mapsAll reports whether the table of a user namespace has all users, as that of the
// first namespace has.
func mapsAll(path string) bool {
	table, err := os.ReadFile(path)
	if err != nil {
		return true // a kernel without user namespaces
	}
	return countMapped(string(table)) == 1<<32-1
}

func countMapped(table string) (n uint64) {
	for line := range strings.Lines(table) {
		var first, outside, count uint64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err == nil {
			n += count
		}
	}
	return n
}
