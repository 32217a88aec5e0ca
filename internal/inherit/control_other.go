//go:build !unix

package inherit

import (
	"errors"
	"syscall"
)

// ReadControl fails: there are no workers here.
func ReadControl(syscall.RawConn, []byte) (n int, fds []int, err error) {
	return 0, nil, errors.ErrUnsupported
}
