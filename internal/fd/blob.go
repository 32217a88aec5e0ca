//go:build unix

package fd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewBlob returns the descriptor of a file that holds data, for any number of
// workers to read. A socketpair holds some 200 KiB and would block the manager;
// the environment is neither large nor private. Workers cannot change the data
// if AnonymousFile is in memory.
func NewBlob(data []byte) (fd int, err error) {
	if err = CheckSize(int64(len(data))); err == nil {
		fd, err = AnonymousFile()
	}
	if err != nil {
		return -1, fmt.Errorf("passing on %d bytes: %w", len(data), err)
	}
	if err = writeAll(fd, data); err == nil {
		err = seal(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("passing on %d bytes: %w", len(data), err)
	}
	return fd, nil
}

// CheckSize returns an error if RLIMIT_FSIZE, which applies to files in memory
// too, does not allow a file of this size. The errno of a write does not name the
// limit.
func CheckSize(size int64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil || uint64(limit.Cur) >= uint64(size) {
		return nil
	}
	return fmt.Errorf("file of %d bytes: %w: RLIMIT_FSIZE is %d: raise it (ulimit -f, LimitFSIZE)", size, unix.EFBIG, limit.Cur)
}

func writeAll(fd int, data []byte) error {
	for at := 0; at < len(data); {
		n, err := unix.Pwrite(fd, data[at:], int64(at))
		if err != nil && err != unix.EINTR {
			return err
		}
		at += max(n, 0)
	}
	return nil
}

// ReadBlob returns the data of a file that NewBlob has made. It reads with
// pread, since all workers of a generation share one file offset.
func ReadBlob(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("data passed on by the manager: %w", err)
	}
	data := make([]byte, st.Size)
	for at := 0; at < len(data); {
		n, err := unix.Pread(fd, data[at:], int64(at))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, fmt.Errorf("data passed on by the manager: %w", err)
		case n == 0:
			return nil, fmt.Errorf("data passed on by the manager ends at byte %d of %d", at, len(data))
		default:
			at += n
		}
	}
	return data, nil
}

// unlinkedFile is AnonymousFile for systems without memfd_create.
func unlinkedFile() (int, error) {
	f, err := os.CreateTemp("", "prefork-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := conn.Control(func(raw uintptr) { fd, err = Duplicate(raw) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}
