//go:build unix && !linux

package binary

import "os"

// Executable returns a path by which the program of this process can be started
// again.
func Executable() (string, error) { return os.Executable() }

// StartPath returns the path of the file. These systems cannot start a process
// from a descriptor, so another file that has taken the name is started instead.
func (b *Binary) StartPath(int) string { return b.path }

// Runs returns false: these systems do not show the file of another process.
func Runs(int, *Binary) bool { return false }

// Loader returns false: programs are rarely started through a loader there.
func Loader([]string) (loader, program string, ok bool) { return "", "", false }

// setName is a no-op: these systems show the program's path and arguments, which
// are those of the manager.
func setName(string) {}
