//go:build unix && !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package proc

// awaitEnd waits until a child has ended, and leaves it to be waited for. False says that it could not: here its group is
// told by nobody once it has begun to be waited for.
func awaitEnd(int) bool { return false }
