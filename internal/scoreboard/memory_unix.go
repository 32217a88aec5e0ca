//go:build unix

package scoreboard

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prepare sets the size of a new cell's file and seals it if possible.
func prepare(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Size != 0 {
		return fmt.Errorf("file of %d bytes: it must be empty", st.Size)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	return seal(fd)
}

// check refuses a file of another size: access to memory after its end would
// kill the process.
func check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size {
		return errNotCell
	}
	return nil
}

// mapPage maps a cell. The kernel maps a whole page; the part after the end of
// the file is unused.
func mapPage(fd int) (p *page, unmap func() error, err error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	unmap = func() error { return os.NewSyscallError("munmap", unix.Munmap(mem)) }
	return (*page)(unsafe.Pointer(unsafe.SliceData(mem))), unmap, nil
}
