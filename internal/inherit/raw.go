package inherit

import "os"

// RawFD returns the descriptor of a file. File.Fd would put the file into
// blocking mode, for all processes that share it. The caller must keep f alive
// while it uses the descriptor.
func RawFD(f *os.File) (fd uintptr, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = conn.Control(func(raw uintptr) { fd = raw })
	return fd, err
}
