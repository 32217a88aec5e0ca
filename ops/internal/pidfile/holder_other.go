//go:build unix && !linux && !solaris && !aix

package pidfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasOpen reports whether the process exists. These systems have no portable
// way to list the files that a process has open.
func hasOpen(pid int, _ *unix.Stat_t, _ *os.File) (has, known bool) { return exists(pid), true }

// hasUser returns false: the users of a process are unknown here.
func hasUser(int, uint32) bool { return false }
