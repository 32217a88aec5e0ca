//go:build unix

package chain

import (
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/resources"
)

// A limit is a soft limit of this process.
type limit struct {
	resource string
	soft     uint64
}

const unlimited = math.MaxUint64

// A change is that of a soft limit of this process.
type change struct {
	number        int
	before, after syscall.Rlimit
}

// limitChanges returns the changes of the soft limits, each at most to the hard
// one, as softlimit does.
func (s *state) limitChanges(errs io.Writer) (changes []change, err error) {
	for _, l := range s.limits {
		number, ok := rlimitNumber(l.resource)
		if !ok {
			if s.verbose {
				fmt.Fprintf(errs, "%s: this system has no limit %s\n", s.name, l.resource)
			}
			continue
		}
		var r syscall.Rlimit
		if err := syscall.Getrlimit(number, &r); err != nil {
			return nil, os.NewSyscallError("getrlimit", err)
		}
		c := change{number, r, r}
		if resources.SetSoft(&c.after, l.soft); c.after.Cur > r.Max {
			c.after.Cur = r.Max
			if s.verbose && l.soft != unlimited {
				fmt.Fprintf(errs, "%s: the limit %s is the hard one, %d, and not %d\n", s.name, l.resource, r.Max, l.soft)
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// A lock is a file that is locked while the program, or a process that has its
// descriptor, lives.
type lock struct {
	path  string
	waits bool
	quiet bool // exit 0 if it is held, or cannot be opened
}

// heldError means that the lock is not to be had.
type heldError struct{ err error }

func (e *heldError) Error() string { return e.err.Error() }
func (e *heldError) Unwrap() error { return e.err }

// take locks the file. The descriptor goes to the program.
func (l *lock) take() error {
	fd, err := unix.Open(l.path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_APPEND|unix.O_CREAT, 0o600)
	if err != nil {
		return &heldError{fmt.Errorf("cannot open the lock: %w", &os.PathError{Op: "open", Path: l.path, Err: err})}
	}
	how := unix.LOCK_EX
	if !l.waits {
		how |= unix.LOCK_NB
	}
	for {
		switch err = unix.Flock(fd, how); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return &heldError{fmt.Errorf("another process holds the lock %s", l.path)}
		default:
			return &heldError{fmt.Errorf("cannot lock %s: %w", l.path, os.NewSyscallError("flock", err))}
		}
	}
}

// changeNice adds to the nice value of this thread, which executes the program.
func changeNice(by int) error {
	now, err := niceOfThread()
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, min(max(now+by, -20), 19)); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	return nil
}
