//go:build !linux

package fd

// WakeThreads is a no-op.
func WakeThreads() {}
