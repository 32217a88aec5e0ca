//go:build unix && !linux

package marker

import (
	"os"

	"golang.org/x/sys/unix"
)

func isParent(m Marker) bool { return os.Getppid() == m.Manager }

// isGone reports whether the manager has ended and was reaped.
func isGone(m Marker) bool { return unix.Kill(m.Manager, 0) == unix.ESRCH }

// Depth returns the number of managers above this process.
func Depth(func(pid int) bool) (int, error) {
	if value, ok := os.LookupEnv(DepthEnv); ok {
		return parseDepth(value)
	}
	return 0, nil
}

// HideDepth is a no-op: these systems do not show the environment of another
// process.
func HideDepth() {}

// IsMissing returns false: these systems do not show the environment of another
// process.
func IsMissing(int) bool { return false }
