//go:build unix && !linux

package inherit

import (
	"os"

	"golang.org/x/sys/unix"
)

func isParent(m Marker) bool { return os.Getppid() == m.Manager }

// isGone tells whether there is no such process any more; one that nobody has waited for yet counts as there.
func isGone(m Marker) bool { return unix.Kill(m.Manager, 0) == unix.ESRCH }

// AnonymousFile is an empty file without a name, close-on-exec, in memory where the system has such.
func AnonymousFile() (int, error) { return unlinkedFile() }

// NoMemoryFiles is for Linux, where they can be refused.
func NoMemoryFiles() error { return nil }

func seal(int) error { return nil }

// setName does nothing: these systems show the program's path and arguments, which are the manager's.
func setName(string) {}

// Executable is a path by which the program that runs here can be run again.
func Executable() (string, error) { return os.Executable() }

// StartPath is the path of the file: here a process cannot be started from a descriptor, and another that has taken the
// file's name is started in its place.
func (b *Binary) StartPath(int) string { return b.path }

// HideDepth leaves the variable where it is: here the environment of an ancestor cannot be read.
func HideDepth() {}

// Restarted cannot be told here.
func Restarted(int, *Binary) bool { return false }

// Depth is how many managers there are above this process.
func Depth() (int, error) {
	if value, ok := os.LookupEnv(DepthEnv); ok {
		return parseDepth(value)
	}
	return 0, nil
}
