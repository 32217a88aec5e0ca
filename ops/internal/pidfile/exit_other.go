//go:build !linux

package pidfile

// WatchExit returns a nil channel: it is implemented on Linux only.
func WatchExit(string, int) (exited <-chan struct{}, release func()) { return nil, func() {} }
