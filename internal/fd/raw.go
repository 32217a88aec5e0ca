package fd

import "os"

// Raw returns the descriptor of a file. File.Fd would put the file into blocking
// mode, for all processes that share it. The caller must keep f alive while it
// uses the descriptor.
func Raw(f *os.File) (raw uintptr, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = conn.Control(func(fd uintptr) { raw = fd })
	return raw, err
}
