//go:build unix && !linux

package preforktest

import "golang.org/x/sys/unix"

// ownDescriptors asks for every number, since /dev/fd is a plain list of all numbers on OpenBSD and, where fdescfs is not
// mounted, one of the first three on FreeBSD.
func ownDescriptors() (map[int]string, error) {
	open := make(map[int]string)
	for fd := range 4096 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open[fd] = ""
		}
	}
	return open, nil
}
