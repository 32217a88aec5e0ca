package fd

import (
	"os"

	"golang.org/x/sys/unix"
)

// AnonymousFile returns the descriptor of an empty file without a name. It is
// close-on-exec. The file is in memory if the system permits that, and
// otherwise in the directory for temporary files.
func AnonymousFile() (int, error) {
	fd, err := newMemoryFile()
	if isRefused(err) {
		return unlinkedFile()
	}
	return fd, os.NewSyscallError("memfd_create", err)
}

// CheckMemoryFiles returns the reason why AnonymousFile creates files on a
// disk, or nil if it creates them in memory. The caller should log the reason:
// workers can change a file on a disk.
func CheckMemoryFiles() error {
	fd, err := newMemoryFile()
	switch {
	case err == nil:
		unix.Close(fd)
	case !isRefused(err):
		return nil // a later call may succeed
	}
	return os.NewSyscallError("memfd_create", err)
}

// newMemoryFile returns no standard stream, also if the program has closed one:
// a descriptor of 0 stands for no data.
func newMemoryFile() (int, error) {
	fd, err := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if isRefused(err) {
		// With vm.memfd_noexec=2 (Linux 6.3) the kernel requires this flag, which
		// older kernels refuse.
		if second, err2 := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL); err2 == nil {
			fd, err = second, nil
		}
	}
	if err != nil || fd >= first {
		return fd, err
	}
	defer unix.Close(fd)
	return Duplicate(uintptr(fd))
}

// isRefused reports whether err comes from an old kernel, a security module or a
// seccomp filter, which may choose any errno. A lack of memory or descriptors is
// no refusal: a later call may succeed.
func isRefused(err error) bool {
	switch err {
	case nil, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR:
		return false
	}
	return true
}

// seal makes a file immutable: a worker that could shrink it would kill the
// other workers that read it.
func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	if isRefused(err) { // not a memfd: a file on a disk, or EPERM on a tmpfs
		return nil
	}
	return os.NewSyscallError("fcntl", err)
}
