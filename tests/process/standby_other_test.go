//go:build unix && !linux

package process_test

// cpus is not available on this system.
func cpus() int { return 0 }
