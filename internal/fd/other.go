//go:build !unix

package fd

import (
	"errors"
	"syscall"
)

func Duplicate(uintptr) (int, error) { return -1, errors.ErrUnsupported }
func Close(int)                      {}
func IsStream(uintptr) bool          { return false }
func Same(int, int) bool             { return false }
func SetBlocking(int, bool) error    { return errors.ErrUnsupported }
func Blocks(int) bool                { return true }
func SetBacklog(int, int) error      { return errors.ErrUnsupported }
func Chmod(uintptr, uint32) error    { return errors.ErrUnsupported }
func NewBlob([]byte) (int, error)    { return -1, errors.ErrUnsupported }
func ReadBlob(int) ([]byte, error)   { return nil, errors.ErrUnsupported }
func AnonymousFile() (int, error)    { return -1, errors.ErrUnsupported }
func CheckMemoryFiles() error        { return nil }
func Limit() int                     { return 1 << 10 }
func CheckSize(int64) error          { return nil }

// Started is a descriptor with which this process was started.
type Started struct{ FD int }

func TakeStarted() []Started { return nil }
func (Started) IsOpen() bool { return false }

// ReadControl fails: these systems have no workers.
func ReadControl(syscall.RawConn, []byte) (n int, fds []int, err error) {
	return 0, nil, errors.ErrUnsupported
}
