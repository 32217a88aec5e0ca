//go:build unix && !linux

package prefork_test

// cpus is not to be had here.
func cpus() int { return 0 }
