//go:build unix && !linux

package preforktest

import "golang.org/x/sys/unix"

// ownDescriptors tries every number. /dev/fd lists all numbers on OpenBSD, and
// only the first three on FreeBSD if fdescfs is not mounted.
func ownDescriptors() (map[int]string, error) {
	open := make(map[int]string)
	for fd := range 4096 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open[fd] = ""
		}
	}
	return open, nil
}
