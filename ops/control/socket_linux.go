package control

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

const abstractNames = true

// bindFile binds a socket whose file has the mode ownerOnly from its birth,
// whatever the umask: Linux takes it from the socket's own.
func bindFile(_ *safedir.Dir, _, path string) (*os.File, error) {
	return listenOn(&unix.SockaddrUnix{Name: path}, path)
}

func listenOn(address *unix.SockaddrUnix, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Fchmod(fd, ownerOnly); err == nil {
		if err = unix.Bind(fd, address); err == nil {
			err = unix.Listen(fd, unix.SOMAXCONN)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func listenAbstract(address string) (*socket, error) {
	f, err := listenOn(&unix.SockaddrUnix{Name: address}, address)
	if err != nil {
		return nil, err
	}
	s, err := newSocket(f, address)
	if err != nil {
		f.Close()
	}
	return s, err
}

func chgrp(dir *safedir.Dir, name string, st *unix.Stat_t, group int) error {
	return withFile(dir, name, st, func(fd int) error {
		return unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH)
	})
}

func chmod(dir *safedir.Dir, name string, st *unix.Stat_t, mode uint32) error {
	return withFile(dir, name, st, func(fd int) error {
		return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	})
}

// withFile calls change with a descriptor of the file, which it does not open for
// use.
func withFile(dir *safedir.Dir, name string, st *unix.Stat_t, change func(fd int) error) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return err
	}
	if !safedir.SameFile(&now, st) {
		return safedir.ErrReplaced
	}
	return change(fd)
}
