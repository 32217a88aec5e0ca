package sockets

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

// siocUnixFile opens the file of a unix socket with O_PATH (Linux 4.12). It needs
// CAP_NET_ADMIN, which a container usually does not have.
const siocUnixFile = 0x89e0

// pinBound returns the file that a bound socket has, also if it has been renamed;
// nil if the kernel does not name it.
func pinBound(socket int) *os.File {
	fd, err := unix.IoctlRetInt(socket, siocUnixFile)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "")
}

// pinNamed opens a file, which may be a link, without using it.
func pinNamed(dir *safedir.Dir, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir.Path() + "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), ""), nil
}

func (f *socketFile) chown(uid, gid int) error {
	return unix.Fchownat(int(f.pin.Fd()), "", uid, gid, unix.AT_EMPTY_PATH)
}

func (f *socketFile) chmod(mode uint32) error {
	// fchmodat2 came with Linux 6.6, and seccomp filters refuse it with any errno.
	if unix.Fchmodat(int(f.pin.Fd()), "", mode, unix.AT_EMPTY_PATH) == nil {
		return nil
	}
	err := unix.Chmod(descriptorPath(f.pin), mode)
	if err != nil && f.dir.Shared() == nil && f.inPlace() { // a chroot without /proc
		err = unix.Fchmodat(int(f.dir.Fd()), f.name, mode, 0)
	}
	return err
}
