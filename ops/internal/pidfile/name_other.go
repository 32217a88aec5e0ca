//go:build unix && !linux && !solaris && !aix

package pidfile

import (
	"errors"
	"os"
)

// Only Linux has sockets with a name that is no file. Elsewhere the lock on the
// pid file is the only one.
type nameLock struct{}

type nameInUseError struct {
	pid    int
	silent bool
}

func (*nameInUseError) Error() string { return "the name is in use" }

func lockName(string) (*nameLock, error)           { return nil, nil }
func nameHolder(string) (pid, user int, held bool) { return 0, 0, false }
func isTrustedUser(int) bool                       { return false }
func adoptName(*os.File) (*nameLock, error)        { return nil, nil }
func (*nameLock) answer()                          {}
func (*nameLock) claim()                           {}
func (*nameLock) handle() *os.File                 { return nil }
func (*nameLock) close() error                     { return nil }

func memoryFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }
