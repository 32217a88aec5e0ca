//go:build unix && !linux && !solaris && !aix

package safedir

import "golang.org/x/sys/unix"

const searchOnly = 0 // there is no portable way to use a directory that cannot be read

func openWithoutLinks(string, int) (int, error) { return -1, unix.ENOSYS }

func renameExclusive(dir int, from, to string) error { return linkAndUnlink(dir, from, to) }

func unmapped(uint32) bool { return false }
