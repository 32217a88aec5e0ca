//go:build !unix

package capture

import (
	"os"
	"syscall"
)

func duplicate(f *os.File) (*os.File, error) {
	self, err := syscall.GetCurrentProcess()
	if err != nil {
		return nil, os.NewSyscallError("GetCurrentProcess", err)
	}
	var d syscall.Handle
	err = syscall.DuplicateHandle(self, syscall.Handle(f.Fd()), self, &d, 0, false, syscall.DUPLICATE_SAME_ACCESS)
	if err != nil {
		return nil, os.NewSyscallError("DuplicateHandle", err)
	}
	return os.NewFile(uintptr(d), f.Name()), nil
}
