//go:build !unix || solaris || aix

package pidfile

import (
	"errors"
	"os"
)

// File is not implemented on this system. All functions that create one
// return errors.ErrUnsupported.
type File struct{}

func Acquire(string) (*File, error)                { return nil, errors.ErrUnsupported }
func AcquireOnFullDisk(string) (*File, error)      { return nil, errors.ErrUnsupported }
func Adopt(_ string, _, _ *os.File) (*File, error) { return nil, errors.ErrUnsupported }
func Read(string) int                              { return 0 }
func Holder(string) (int, bool, error)             { return 0, false, errors.ErrUnsupported }
func (p *File) File() *os.File                     { return nil }
func (p *File) Name() *os.File                     { return nil }
func (p *File) Restore() (Restored, error)         { return Intact, errors.ErrUnsupported }
func (p *File) Write() error                       { return errors.ErrUnsupported }
func (p *File) Touch() error                       { return errors.ErrUnsupported }
func (p *File) InPlace() bool                      { return false }
func (p *File) Release() error                     { return nil }
func (p *File) Close() error                       { return nil }

func Signal(string, os.Signal) (int, error) { return 0, errors.ErrUnsupported }
func CheckDir(string) (bool, error)         { return false, errors.ErrUnsupported }
func WorldWritable(string) bool             { return false }
func DiskFull(error) bool                   { return false }
func Trusted(os.FileInfo) bool              { return true }

func OpenAppend(string, uint32) (*os.File, error) { return nil, errors.ErrUnsupported }
func InPlace(*os.File, string) bool               { return true }
