//go:build unix && !linux

package proc

// unblockSignals does nothing: x/sys has no call for the mask of a thread here.
func unblockSignals() (restore func()) { return func() {} }
