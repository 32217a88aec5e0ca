//go:build unix && !linux

package inherit

import "os"

func isParent(m Marker) bool { return os.Getppid() == m.Manager }

func anonymousFile() (int, error) { return unlinkedFile() }

func seal(int) error { return nil }

// setName does nothing: these systems show the program's path and arguments, which are the manager's.
func setName(string) {}

// Executable is a path by which the program that runs here can be run again.
func Executable() (string, error) { return os.Executable() }

// HideDepth leaves the variable where it is: here the environment of an ancestor cannot be read.
func HideDepth() {}

// Restarted cannot be told here.
func Restarted(int) bool { return false }

// Depth is how many managers there are above this process.
func Depth() (int, error) {
	if value, ok := os.LookupEnv(DepthEnv); ok {
		return parseDepth(value)
	}
	return 0, nil
}
