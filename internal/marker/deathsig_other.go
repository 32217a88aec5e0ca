//go:build unix && !linux

package marker

// keepParentDeathSignal is a no-op: on FreeBSD the signal belongs to the process,
// and stays when that changes its user.
func keepParentDeathSignal() (restore func()) { return func() {} }
