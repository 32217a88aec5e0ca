//go:build !unix

package inherit

import (
	"errors"
	"os"
	"syscall"
)

// On systems without Unix processes nobody inherits: every process is an ordinary one, and New says that there are no
// workers here.

func Take() (Marker, Role, error)                  { return Marker{}, Ordinary, nil }
func Depth() (int, error)                          { return 0, errors.ErrUnsupported }
func Executable() (string, error)                  { return os.Executable() }
func HideDepth()                                   {}
func Restarted(int, *Binary) bool                  { return false }
func SetName(string)                               {}
func NewBlob([]byte) (int, error)                  { return -1, errors.ErrUnsupported }
func ReadBlob(int) ([]byte, error)                 { return nil, errors.ErrUnsupported }
func IsStream(uintptr) bool                        { return false }
func Close(int)                                    {}
func DupCloseOnExec(uintptr) (int, error)          { return -1, errors.ErrUnsupported }
func Alter(base, _ []string, _ ...string) []string { return base }
func AllGiven() ([]Given, error)                   { return nil, nil }
func Fit([]*Given, string, string) (*Given, error) { return nil, nil }
func Exit(code int)                                { syscall.Exit(code) }

func LockDir(string) (func(), error)          { return nil, errors.ErrUnsupported }
func AnonymousFile() (int, error)             { return -1, errors.ErrUnsupported }
func NoMemoryFiles() error                    { return nil }
func SetBlocking(int, bool) error             { return errors.ErrUnsupported }
func StarterName(int, string) (string, error) { return "", errors.ErrUnsupported }
func ForgetGiven()                            {}

const CommandEnv = "PREFORK_COMMAND"

type Given struct{ FD int }

func (Given) String() string { return "" }

type Binary struct{}

func OnDisk(string, string) (string, error) { return os.Executable() }
func OpenBinary(string) (*Binary, error)    { return nil, errors.ErrUnsupported }
func (*Binary) FD() int                     { return -1 }
func (*Binary) Path() string                { return "" }
func (*Binary) Close()                      {}
func (*Binary) Same(*Binary) bool           { return false }
func (*Binary) StartPath(int) string        { return "" }

// TakeReaper is not for this system.
func TakeReaper() (value string, ok bool) { return "", false }

// AddressedTo is not for this system.
func AddressedTo(int) {}
