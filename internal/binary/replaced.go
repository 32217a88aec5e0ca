package binary

import "os"

// Replaced reports whether the path of a program now has another file than exe, by
// which this process starts its own.
func Replaced(exe, path string) bool {
	ours, err1 := os.Stat(exe)
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && !os.SameFile(ours, there)
}
