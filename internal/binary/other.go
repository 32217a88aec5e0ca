//go:build !unix

package binary

import (
	"errors"
	"os"
)

// Binary is an open program file. Open never returns one here.
type Binary struct{}

func Open(string) (*Binary, error)          { return nil, errors.ErrUnsupported }
func (*Binary) FD() int                     { return -1 }
func (*Binary) Path() string                { return "" }
func (*Binary) Close()                      {}
func (*Binary) Same(*Binary) bool           { return false }
func (*Binary) StartPath(int) string        { return "" }
func OnDisk(string, string) (string, error) { return os.Executable() }
func Executable() (string, error)           { return os.Executable() }
func Runs(int, *Binary) bool                { return false }
func Loader([]string) (_, _ string, _ bool) { return "", "", false }
func DirByName(_, dir string) string        { return dir }
func (*Binary) File() string                { return "" }
func SetName(string)                        {}
