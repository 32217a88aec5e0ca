//go:build unix && !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package proc

// AwaitExit always returns false: these systems offer no wait that leaves a
// zombie. A group is not signaled here after the wait for its leader has begun.
func AwaitExit(int) bool { return false }
