//go:build !linux

package safedir

// Ambiguous returns false: only Linux has user namespaces.
func Ambiguous(uint32) bool { return false }

// AmbiguousGroup returns false.
func AmbiguousGroup(uint32) bool { return false }
