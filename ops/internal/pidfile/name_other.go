//go:build unix && !linux && !solaris && !aix

package pidfile

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
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

// replace makes the descriptor of a file one of another file. No process is started
// in between, which would inherit it.
func replace(old, by *os.File) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	_, err := retryEINTR(func() (int, error) { return 0, unix.Dup2(rawFD(by), rawFD(old)) })
	if err == nil {
		unix.CloseOnExec(rawFD(old))
	}
	return os.NewSyscallError("dup2", err)
}
