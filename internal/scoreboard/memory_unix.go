//go:build unix

package scoreboard

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prepare gives a new cell's file its size, for good where that can be had.
func prepare(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Size != 0 {
		return fmt.Errorf("the file has %d bytes already", st.Size)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	return seal(fd)
}

// check refuses a file that is too small: touching memory behind its end would kill the process.
func check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size {
		return errors.New("not a cell that a manager has made")
	}
	return nil
}

// mapPage maps a cell. The kernel maps whole pages, of any size; what lies behind the end of the file is of no use.
func mapPage(fd int) (p *page, unmap func() error, err error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	unmap = func() error { return os.NewSyscallError("munmap", unix.Munmap(mem)) }
	return (*page)(unsafe.Pointer(unsafe.SliceData(mem))), unmap, nil
}
