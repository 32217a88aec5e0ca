//go:build !linux

package preforktest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

var errUnsupported = fmt.Errorf("preforktest: processes of %s: %w", runtime.GOOS, errors.ErrUnsupported)

func processes(func(pid int) bool) ([]Proc, error) { return nil, errUnsupported }
func children(int) ([]Proc, error)                 { return nil, errUnsupported }
func threads(int) (int, error)                     { return 0, errUnsupported }
func contextSwitches(int) (int64, error)           { return 0, errUnsupported }
func privateMemory(int) (int64, error)             { return 0, errUnsupported }

func descriptors(pid int) (map[int]string, error) {
	if pid != os.Getpid() {
		return nil, errUnsupported
	}
	return ownDescriptors()
}

// Without /proc no other process is known to be a descendant, so none is killed.
func hasVariable(int, string) bool { return false }
func holdsPipe(int, string) bool   { return false }
func pipeName(*os.File) string     { return "" }
