//go:build unix

package preforktest

import "golang.org/x/sys/unix"

// anyChild tells whether this process has a child. It takes the status of a zombie, and is therefore for the end of the
// process, and for systems where Children does not work.
func anyChild() bool {
	for {
		_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}
