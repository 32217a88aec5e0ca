//go:build !linux

package pidfile

// Watch cannot tell here.
func Watch(string, int) (ended <-chan struct{}, release func()) { return nil, func() {} }
